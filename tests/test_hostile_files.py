"""Model files that are damaged, made up or hostile. Each gives a `ValueError` of one line, soon, and takes no memory for what it claims."""
import json, os, pickle, random, resource, struct, time
from pathlib import Path

import pytest, torch
from safetensors.torch import save, save_file

from ssd_fastai.files import SEAL_MARK, load_detector, save_detector, seal
from ssd_fastai.onnx import export_onnx

pytest.importorskip('timm', reason='the fixed detector has a timm body: pip install timm')
GOOD = (Path(__file__).resolve().parent/'golden/detector.safetensors').read_bytes()
N    = int.from_bytes(GOOD[:8], 'little')

def parts():
    "The table of tensors, our own header, and the bytes of the weights, of the good file"
    tensors = json.loads(GOOD[8:8+N])
    return tensors, json.loads(tensors.pop('__metadata__')['ssd_fastai']), GOOD[8+N:]

def join(tensors, ours, data, sealed=True):
    "A file of these parts, with a checksum that fits: a forger can compute it too"
    if sealed: ours = {**ours, 'checksum':SEAL_MARK}
    text = json.dumps({'__metadata__':{'ssd_fastai':ours if isinstance(ours, str) else json.dumps(ours)}, **tensors}).encode()
    text += b' '*(-len(text)%8)
    raw = struct.pack('<Q', len(text)) + text + data
    return seal(raw) if sealed else raw

def refused(path, raw=None, suffix='.safetensors'):
    "The one line with which a file is refused"
    if raw is not None:
        path = path/f'f{suffix}'
        path.write_bytes(raw)
    with pytest.raises(ValueError) as e: load_detector(path)
    assert type(e.value) is ValueError and len(str(e.value)) < 1000 and '\n' not in str(e.value)
    return str(e.value)

def test_the_forger_can_write_a_good_file(tmp_path):
    (tmp_path/'f.safetensors').write_bytes(join(*parts()))
    assert load_detector(tmp_path/'f.safetensors').vocab[0]=='#na#'

# --- damage

def test_every_flipped_bit_is_found(tmp_path):
    rng = random.Random(0)
    places = [*range(0, 8), *(rng.randrange(8, 8+N) for _ in range(30)), *(rng.randrange(8+N, len(GOOD)) for _ in range(15)), len(GOOD)-1]
    for i in places:
        raw = bytearray(GOOD)
        raw[i] ^= 1 << rng.randrange(8)
        refused(tmp_path, raw)

def test_every_cut_is_found(tmp_path):
    for n in [0, 1, 7, 8, 9, 100, 8+N-1, 8+N, 8+N+1, len(GOOD)//2, len(GOOD)-1]: refused(tmp_path, GOOD[:n])
    refused(tmp_path, GOOD+b'\0')

def test_weights_that_change_places(tmp_path):
    tensors,ours,data = parts()
    a,b = [k for k,v in tensors.items() if v['shape']==tensors['head.smooth.0.0.weight']['shape']][:2]
    tensors[a],tensors[b] = tensors[b],tensors[a]
    assert 'altered' in refused(tmp_path, join(tensors, ours, data, sealed=False))

# --- claims; all with a checksum that fits

LIMITS = dict(score=.1, iou=.5, max_per_class=20, max_per_image=None)
CLAIMS = {
    'format':     (dict(format=1), 'format 1'),
    'old format': (dict(format=2, thresholds=dict(score=.1, overlap=.5, top_k=20)), 'open it with the version of ssd_fastai that wrote it'),
    'no arch':    (dict(config={'arch':'resnet9000'}), 'unknown architecture'),
    'path':       (dict(config={'arch':'../../etc/passwd'}), 'config.arch'),
    'hub':        (dict(config={'arch':'hf-hub:somebody/something'}), 'config.arch'),
    'local dir':  (dict(config={'arch':'local-dir:.'}), 'config.arch'),
    'a list':     (dict(config={'arch':['resnet18']}), 'config.arch'),
    'other arch': (dict(config={'arch':'resnet18'}), 'bytes of weights'),
    'huge arch':  (dict(config={'arch':'regnet_y_128gf'}), 'bytes of weights'),
    'timm giant': (dict(config={'arch':'convnext_xxlarge'}), 'bytes of weights'),
    'near arch':  (dict(config={'arch':'test_efficientnet_gn'}), 'do not fit'),
    'width':      (dict(config={'width':100_000}), 'config.width'),
    'width 2048': (dict(config={'width':2048}), 'bytes of weights'),
    'width 24':   (dict(config={'width':24}), 'do not fit'),
    'depth':      (dict(config={'depth':10**9}), 'config.depth'),
    'depth 2':    (dict(config={'depth':2}), 'do not fit'),
    'bool':       (dict(config={'depth':True}), 'config.depth'),
    'size':       (dict(size=[10**6, 10**6]), 'size'),
    'own size':   (dict(config={'size':[96, -1]}), 'config.size'),
    'anchors':    (dict(config={'recipe':dict(zooms=[1.]*16, ratios=[[1.,1.]]*16), 'size':[4096,4096]}), 'anchors'),
    'zooms':      (dict(config={'recipe':dict(zooms=[1.]*100_000, ratios=[[1.,1.]])}), 'zooms'),
    'zoom nan':   (dict(config={'recipe':dict(zooms=[float('nan')], ratios=[[1.,1.]])}), 'zooms'),
    'levels':     (dict(config={'recipe':dict(zooms=[[1.],[2.]], ratios=[[1.,1.]])}), 'levels'),
    'std 0':      (dict(config={'std':[0,0,0]}), 'config.std'),
    'mean inf':   (dict(config={'mean':[float('inf'),0,0]}), 'config.mean'),
    'encoding':   (dict(config={'encoding':'pickle'}), 'config.encoding'),
    'head':       (dict(config={'head':'pickle'}), 'config.head'),
    'score':      (dict(thresholds={**LIMITS, 'score':2}), 'thresholds.score'),
    'iou':        (dict(thresholds={**LIMITS, 'iou':float('nan')}), 'thresholds.iou'),
    'per class':  (dict(thresholds={**LIMITS, 'max_per_class':0}), 'thresholds.max_per_class'),
    'per image':  (dict(thresholds={**LIMITS, 'max_per_image':1.5}), 'thresholds.max_per_image'),
    'extra':      (dict(thresholds={**LIMITS, 'code':'x'}), 'nothing else'),
    'old names':  (dict(thresholds=dict(score=.1, overlap=.5, top_k=20)), 'nothing else'),
    'vocab':      (dict(vocab=['#na#','a']), 'different names'),
    'vocab long': (dict(vocab=['#na#','a','b','c'*10_000]), 'vocab'),
    'vocab many': (dict(vocab=['#na#']+['x']*50_000), 'vocab'),
    'twice':      (dict(vocab=['#na#','a','a','b']), 'different names'),
    'info':       (dict(info=[1]), 'info'),
    'method':     (dict(method='crop'), 'method'),
}

@pytest.mark.parametrize('name', CLAIMS)
def test_claims(tmp_path, name):
    change,why = CLAIMS[name]
    tensors,ours,data = parts()
    for k,v in change.items(): ours[k] = {**ours[k], **v} if k=='config' else v
    before,t = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,time.process_time()
    assert why in refused(tmp_path, join(tensors, ours, data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before < 400_000, 'kilobytes taken for a claim'
    assert time.process_time()-t < 20

@pytest.mark.parametrize('name,change', [
    ('shape', {'shape':[3,3,3,3]}), ('no shape', {'shape':None}), ('huge shape', {'shape':[2**31]*8}), ('deep shape', {'shape':[[1]]}),
    ('dtype', {'dtype':'F16'}), ('odd dtype', {'dtype':'PICKLE'}), ('offsets', {'data_offsets':[0, 2**40]}), ('overlap', {'data_offsets':[0, 64]}),
    ('negative', {'data_offsets':[-64, 0]}), ('extra key', {'code':'x'})])
def test_tensors(tmp_path, name, change):
    tensors,ours,data = parts()
    k = 'head.smooth.0.0.weight'
    tensors[k] = {**tensors[k], **change}
    refused(tmp_path, join(tensors, ours, data))

def test_tensors_missing_or_too_many(tmp_path):
    tensors,ours,data = parts()
    refused(tmp_path, join({k:v for k,v in tensors.items() if k!='mean'}, ours, data))
    refused(tmp_path, join({**tensors, '../../x':tensors['mean']}, ours, data))
    refused(tmp_path, join({}, ours, b''))
    refused(tmp_path, join(tensors, ours, data+bytes(10_000_000)))

@pytest.mark.parametrize('text', ['', 'null', '[]', '1', '"x"', '{"a":', '['*200_000, '{"a":'*100_000, '{"format":2}', '9'*100_000, '\ud800'])
def test_header_bombs(tmp_path, text):
    tensors,_,data = parts()
    refused(tmp_path, join(tensors, text, data, sealed=False))
    raw = text.encode('utf-8', 'surrogatepass')
    refused(tmp_path, struct.pack('<Q', len(raw)) + raw + data)

@pytest.mark.parametrize('n', [0, 1, 2**31, 2**40, 2**63, 2**64-1])
def test_header_lengths(tmp_path, n): refused(tmp_path, struct.pack('<Q', n) + GOOD[8:])

def test_a_sparse_giant(tmp_path):
    "A file of 60 GB that takes no room on disk is refused without reading it"
    with open(tmp_path/'f.safetensors', 'wb') as f: f.write(GOOD); f.truncate(60*2**30)
    assert 'longer than its weights' in refused(tmp_path/'f.safetensors')

# --- something else

class Bomb:
    def __reduce__(self): return os.mkdir, ('exploded',)

def test_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for suffix in ('.safetensors', '.pkl', '.pth', '.onnx', ''):
        for raw in (pickle.dumps(Bomb()), pickle.dumps(Bomb(), protocol=0)): refused(tmp_path, raw, suffix)
        torch.save(Bomb(), tmp_path/f'f{suffix}')
        refused(tmp_path/f'f{suffix}')
    assert not (tmp_path/'exploded').exists()

def test_something_else(tmp_path):
    save_file({'w':torch.zeros(2)}, tmp_path/'w.safetensors')
    assert 'not of a detector' in refused(tmp_path/'w.safetensors')
    assert 'no such file' in refused(tmp_path)
    refused(tmp_path, save({'w':torch.zeros(2)}, metadata={'ssd_fastai':'{}'}))

def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path/'g.safetensors').write_bytes(GOOD)
    det = load_detector(tmp_path/'g.safetensors')
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(ValueError, match='No space left'): save_detector(det, tmp_path/'g.safetensors')
    assert [o.name for o in tmp_path.iterdir()]==['g.safetensors'] and (tmp_path/'g.safetensors').read_bytes()==GOOD

# --- ONNX

@pytest.fixture(scope='module')
def onnx_file(tmp_path_factory):
    onnx,_ = pytest.importorskip('onnx', reason='pip install onnx'),pytest.importorskip('onnxruntime')
    path = tmp_path_factory.mktemp('onnx')
    (path/'g.safetensors').write_bytes(GOOD)
    export_onnx(load_detector(path/'g.safetensors'), path/'g.onnx', suppress=True)
    return onnx, (path/'g.onnx').read_bytes()

def resealed(p):
    "The bytes of an ONNX model, changed and with a checksum that fits"
    for o in p.metadata_props:
        if o.key=='ssd_fastai': o.value = json.dumps({**json.loads(o.value), 'checksum':SEAL_MARK})
    return seal(p.SerializeToString())

def test_onnx_damage(tmp_path, onnx_file):
    raw,rng = onnx_file[1],random.Random(1)
    for i in [0, 1, *(rng.randrange(len(raw)) for _ in range(20)), len(raw)-1]:
        bad = bytearray(raw)
        bad[i] ^= 1 << rng.randrange(8)
        refused(tmp_path, bad, '.onnx')
    for n in (0, 1, 100, len(raw)//2, len(raw)-1): refused(tmp_path, raw[:n], '.onnx')

def test_onnx_claims(tmp_path, onnx_file):
    onnx,raw = onnx_file
    p = onnx.load_from_string(raw)
    assert load_detector_bytes(tmp_path, resealed(p)).vocab[0]=='#na#'
    own = json.loads(p.metadata_props[0].value)
    for change,why in [(dict(onnx={**own['onnx'], 'grids':[[4096,4096]]*16}), 'anchors'), (dict(onnx={**own['onnx'], 'kind':'raw'}), 'outputs'),
                       (dict(size=[64,64,64]), 'size'), (dict(format=1), 'format 1')]:
        p.metadata_props[0].value = json.dumps({**own, **change})
        assert why in refused(tmp_path, resealed(p), '.onnx')
    p.metadata_props[0].value = '['*100_000
    refused(tmp_path, p.SerializeToString(), '.onnx')
    del p.metadata_props[:]
    assert 'not of a detector' in refused(tmp_path, p.SerializeToString(), '.onnx')

def load_detector_bytes(folder, raw):
    (folder/'f.onnx').write_bytes(raw)
    return load_detector(folder/'f.onnx')

def test_onnx_takes_no_other_files(tmp_path, onnx_file):
    onnx,raw = onnx_file
    p = onnx.load_from_string(raw)
    t = p.graph.initializer[0]
    t.data_location = onnx.TensorProto.EXTERNAL
    e = t.external_data.add()
    e.key,e.value = 'location','../../etc/passwd'
    assert 'other files' in refused(tmp_path, resealed(p), '.onnx')

def test_onnx_that_cannot_run(tmp_path, onnx_file):
    onnx,raw = onnx_file
    p = onnx.load_from_string(raw)
    p.graph.node[0].op_type = 'Format_C'
    assert 'cannot read' in refused(tmp_path, resealed(p), '.onnx')
