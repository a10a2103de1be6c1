"The fast ways beside the plain one: folded weights, bfloat16, reduced JPEGs, images opened ahead, int8."
import contextlib, gc, io, json, threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from ssd_fastai.detector import Detector, ready_network, evaluation_view
from ssd_fastai.files import load_detector, save_detector
from ssd_fastai.model import create_ssd
from ssd_fastai.nms import Thresholds
from ssd_fastai.readers import read_split
from ssd_fastai.synth import synth_voc
import ssd_fastai.cli as cli

ROOT  = Path(__file__).resolve().parent.parent
MODEL = ROOT/'tests/golden/detector.safetensors'
ALL   = Thresholds(score=0., max_per_image=50)

@pytest.fixture(scope='module')
def shapes(tmp_path_factory): return synth_voc(tmp_path_factory.mktemp('precision')/'shapes', n=90, seed=3, n_classes=3)

def records(data, split):
    "Those whose classes the golden detector knows"
    return [o for o in read_split(data, split) if set(o.names) <= {*load_detector(MODEL).vocab}]

def learned(arch, size, head='fpn'):
    "A network whose batch statistics are not those that it began with"
    torch.manual_seed(0)
    net = create_ssd(arch, 4, size, head=head)
    with torch.no_grad():
        for _ in range(2): net.train()(torch.rand(4,3,*((size,size) if isinstance(size, int) else size)))
    return net.eval()

NETS = [('resnet18',64,'fpn'), ('mobilenet_v3_large',(96,64),'fpn'), ('resnet18',224,'classic'), ('efficientnet_b0',64,'fpn'), ('convnext_tiny',64,'fpn')]
@pytest.mark.parametrize('arch,size,head', NETS, ids=lambda o: str(o))
def test_ready_network_says_the_same(arch, size, head):
    net = learned(arch, size, head)
    x   = torch.rand(2,3,*((size,size) if isinstance(size, int) else size))
    state = {k: v.clone() for k,v in net.state_dict().items()}
    with torch.no_grad(): want,got = net(x),ready_network(evaluation_view(net), x[:1])(x)
    for a,b in zip(got, want): assert (a-b).abs().max() < 1e-3*(1+b.abs().max())
    assert all(torch.equal(v, state[k]) for k,v in net.state_dict().items())

def test_a_loaded_detector_notices_new_weights(tmp_path):
    "Also those that are written behind PyTorch's count of changes, as fastai's optimizers do"
    det   = load_detector(save_detector(Detector(learned('resnet18', 64), ['#na#',*'abc'], 64, thresholds=ALL), tmp_path/'m.safetensors'))
    image = np.random.default_rng(0).integers(0, 256, (50,70,3), dtype=np.uint8)
    plain = lambda: Detector(det.model, det.vocab, 64, thresholds=ALL).detect(image).scores
    near  = lambda: torch.allclose(det.detect(image).scores, plain(), atol=1e-4)
    assert near()
    with torch.no_grad():
        for p in det.model.parameters(): p.add_(0.01)
    assert near()
    for p in det.model.parameters(): p.data.mul_(0.9)
    assert near()
    det.model.set_recipe(replace(det.model.recipe))
    assert near()

@pytest.mark.parametrize('precision', ['float32','bf16','fp16'])
def test_threads_share_a_loaded_detector(precision):
    "Made ready by whoever comes first; the model keeps its mode and its type"
    det   = load_detector(MODEL, precision)
    det.model.train()
    files = sorted((ROOT/'tests/golden/images').iterdir())
    want  = [det.detect(f, score=0.01).scores for f in files]
    new   = load_detector(MODEL, precision)
    new.model.train()
    with ThreadPoolExecutor(8) as pool: got = list(pool.map(lambda f: new.detect(f, score=0.01).scores, files*3))
    for a,b in zip(got, want*3): assert torch.allclose(a, b, atol=1e-5)
    assert new.model.training and {o.dtype for o in new.model.parameters()}=={torch.float32}

def test_precisions_agree_in_accuracy(shapes):
    recs = records(shapes, 'trainval')
    aps  = {p: load_detector(MODEL, p).evaluate(recs, progress=False) for p in ('float32','bf16','fp16')}
    plain = Detector(load_detector(MODEL).model, load_detector(MODEL).vocab, (80,96), load_detector(MODEL).method).evaluate(recs, progress=False)
    assert aps['float32'].voc12 > 0.3 and len(recs) >= 30
    assert abs(aps['float32'].voc12-plain.voc12) < 1e-3
    for p in ('bf16','fp16'):
        assert abs(aps[p].voc12-aps['float32'].voc12) < 0.01, p      # 76 images: one object that tips over counts this much
        assert aps[p].protocol['precision']==p

def test_precision_words():
    "One line for the names that people use"
    for f in (lambda p: load_detector(MODEL, p), lambda p: load_detector(MODEL).detect(np.zeros((9,9,3), np.uint8), precision=p)):
        for p in ('fp32','float16','bfloat16','BF16','half','16','int8',''):
            with pytest.raises(ValueError, match='give auto, float32, bf16 or fp16') as e: f(p)
            assert '\n' not in str(e.value)
    image = next((ROOT/'tests/golden/images').iterdir())
    for f,args in ((cli.ssd_predict, [MODEL, image]), (cli.ssd_eval, [MODEL, ROOT/'tests'])):
        with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as e:
            f([*map(str, args), '--precision', 'half'])
        assert e.value.code==2 and len(err.getvalue().strip().splitlines())==1

# --- opened ahead

@pytest.mark.parametrize('ext,size', [('jpg',(1600,1200)), ('jpg',(97,400)), ('png',(700,500))])
@pytest.mark.parametrize('method', ['squish','pad'])
def test_large_files_give_the_boxes_of_the_whole_image(ext, size, method, tmp_path, shapes):
    "A JPEG decoded at a fraction: scores and boxes within a stated tolerance of those of all its pixels"
    det = load_detector(MODEL)
    det.method = method
    for i,r in enumerate(records(shapes, 'test')[:6]):
        Image.open(r.file).convert('RGB').resize(size, Image.BICUBIC).save(tmp_path/f'{i}.{ext}', quality=95)
        a,b = det.detect(tmp_path/f'{i}.{ext}', score=0.3),det.detect(Image.open(tmp_path/f'{i}.{ext}'), score=0.3)
        assert a.size==b.size==size[::-1] and a.file and not b.file
        for o,p in ((a,b),(b,a)):
            sure = o[o.scores>0.35]
            if not len(sure): continue
            far = (sure.boxes[:,None]-p.boxes).abs().amax(-1)/max(size)
            like = (far<0.01) & (sure.labels[:,None]==p.labels) & ((sure.scores[:,None]-p.scores).abs()<0.05)
            assert like.any(1).all()

def test_many_files_with_broken_ones_in_order(tmp_path, shapes):
    det   = load_detector(MODEL)
    files = [o.file for o in records(shapes, 'trainval')]
    (tmp_path/'bad.jpg').write_text('no image')
    mixed = [o for f in files for o in (f, tmp_path/'bad.jpg', tmp_path/'missing.png')]
    found = list(det.detect_files(mixed, bs=5))
    assert [f for f,_ in found]==mixed
    for i,(f,d) in enumerate(found):
        if i%3: assert isinstance(d, ValueError) and f.name in str(d)
        else:   assert d.file==f and d.image is None
    assert torch.equal(found[0][1].boxes, list(det.detect_files(mixed[:15], bs=5))[0][1].boxes)
    with pytest.raises(ValueError, match='bad.jpg'): det.detect(mixed)

def test_nothing_is_left_behind_when_nobody_reads_on(shapes):
    det  = load_detector(MODEL)
    n    = threading.active_count()
    some = det.detect_files([o.file for o in records(shapes, 'trainval')]*3, bs=2)
    next(some); del some
    gc.collect()
    assert threading.active_count() <= n

def test_memory_is_flat(tmp_path, shapes):
    "Three hundred images of a megabyte each hold no more at once than thirty"
    import tracemalloc
    det  = load_detector(MODEL)
    file = tmp_path/'a.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (500,700,3), dtype=np.uint8)).save(file, compress_level=0)
    def peak(n):
        tracemalloc.start()
        for _ in det.detect_files([file]*n, bs=4): pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most
    peak(8)
    a,b = peak(30),peak(300)
    assert b < 1.5*a+2e6, (a, b)

def test_no_images_no_totals(tmp_path, capsys):
    "Where nothing could be read nothing is summed up"
    (tmp_path/'bad.jpg').write_text('no image')
    with pytest.raises(SystemExit): cli.ssd_predict([str(MODEL), str(tmp_path/'bad.jpg')])
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([o for o in lines if not o.startswith('failed:')])==1 and 'could not be read' in lines[-1], lines

# --- int8

@pytest.fixture(scope='module')
def onnx_room():
    for o in ('onnx','onnxscript','onnxruntime'): pytest.importorskip(o, reason=f'ONNX needs {o}: pip install {o}')
    from ssd_fastai import onnx
    return onnx

def test_int8_loses_little_and_says_so(onnx_room, shapes, tmp_path, capsys):
    det   = load_detector(MODEL)
    train,valid = records(shapes, 'train'),records(shapes, 'trainval')
    file  = onnx_room.export_onnx(det, tmp_path/'m.onnx', images=train, int8=True, records=valid, max_loss=0.02)
    words = [o for o in capsys.readouterr().out.splitlines() if o.startswith('int8: ')]
    eight = load_detector(file)
    about = eight.info['quantised']
    again = eight.evaluate(valid, progress=False)
    assert len(words)==1 and f"{about['int8']['voc12']:.3f}" in words[0]
    assert again.voc12==about['int8']['voc12'] and about['images']==len(valid) and about['calibrated_on']==len(train)
    assert det.evaluate(valid, progress=False).voc12-again.voc12 <= 0.02+1e-3
    assert abs(about['float32']['voc12']-det.evaluate(valid, progress=False).voc12) < 0.005
    assert again.voc12 > 0.3

def test_int8_that_loses_too_much_is_not_written(onnx_room, shapes, tmp_path, monkeypatch):
    det    = load_detector(MODEL)
    valid  = records(shapes, 'trainval')
    blind  = [Image.new('RGB', (96,80))]   # calibrated on black images, which have no range
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match='not written: it loses more than max_loss=0.01 AP50') as e:
        onnx_room.export_onnx(det, tmp_path/'m.onnx', images=blind, int8=True, records=valid)
    assert 'float32: ' in str(e.value) and '\n' not in str(e.value) and sorted(tmp_path.iterdir())==before

def test_two_models_in_the_shell(shapes, tmp_path, capsys):
    cli.ssd_eval([str(MODEL), str(MODEL), str(shapes), '--json', str(tmp_path/'two.json')])
    out = capsys.readouterr().out
    both = json.loads((tmp_path/'two.json').read_text())
    assert 'AP50: a and b are equal' in out and both['comparison']['voc12']['difference']==0 and both['a']==both['b']
