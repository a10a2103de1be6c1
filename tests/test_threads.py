"""Detection from several threads at once: the same answers as from one thread, and a model that is as it was before."""
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import numpy as np, pytest, torch
from torch import nn
from ssd_fastai.detector import Detector, evaluation_view
from ssd_fastai.files import load_detector, save_detector
from ssd_fastai.model import create_ssd
from ssd_fastai.nms import Thresholds
from ssd_fastai.records import GroundTruth

VOCAB = ['#na#', 'cat', 'dog']
ALL   = Thresholds(score=0., max_per_image=20)
MODES = ['training', 'evaluation', 'mixed']

def images(n=3):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40+20*(i%3), 90-15*i, 3), dtype=np.uint8) for i in range(n)]

@pytest.fixture(scope='module')
def net():
    "A network whose batch statistics are not those that it began with"
    torch.manual_seed(0)
    net = create_ssd('resnet18', 3, 64, width=32)
    with torch.no_grad():
        for _ in range(3): net.train()(torch.rand(4,3,64,64))
    return net

def in_mode(net, mode):
    net.train(mode!='evaluation')
    if mode=='mixed': net.body.eval()   # as in a training with a frozen body
    return net

@contextmanager
def untouched(net):
    "Parameters, statistics, modes and anchors are those of before, to the bit"
    state = {k: v.clone() for k, v in net.state_dict().items()}
    modes = {k: m.training for k, m in net.named_modules()}
    grids,anchors = list(net.grids), net.anchors.clone()
    yield
    assert {k: m.training for k, m in net.named_modules()} == modes
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert net.grids == grids and torch.equal(net.anchors, anchors)

def alike(a, b):
    assert len(a)==len(b)>0 and torch.equal(a.labels, b.labels) and a.size==b.size
    assert torch.allclose(a.scores, b.scores, atol=1e-5) and torch.allclose(a.boxes, b.boxes, atol=1e-2)

def same_set(a, b, eps=1e-4):
    "The same detections to `eps`, scores near a limit or a tie apart"
    n = min(len(a), len(b))
    assert abs(len(a)-len(b))<=1 and a.size==b.size and n and torch.allclose(a.scores[:n], b.scores[:n], atol=eps)

def in_threads(f, jobs, n=8):
    with ThreadPoolExecutor(n) as pool: return list(pool.map(f, jobs))

@pytest.mark.parametrize('mode', MODES)
def test_detect_from_eight_threads(net, mode):
    "At three sizes with one model, alone and with mirror images"
    dets = [Detector(in_mode(net, mode), VOCAB, size, method, ALL)
            for size, method in ((64, 'squish'), ((96,64), 'squish'), (128, 'pad'))]
    jobs = [(d, im, mirror) for d in dets for im in images() for mirror in (False, True)]
    find = lambda o: o[0].detect(o[1], mirror=o[2])
    with untouched(net):
        want = [find(o) for o in jobs]
        got  = in_threads(find, jobs*2)
        for a, b in zip(got, want*2): alike(a, b)

def test_every_mode_gives_the_same(net):
    "What a model finds does not depend on the mode that it is in"
    found = []
    for mode in MODES: found.append(Detector(in_mode(net, mode), VOCAB, 64, thresholds=ALL).detect(images()))
    for o in found[1:]:
        for a, b in zip(found[0], o): assert torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores)

@pytest.mark.parametrize('mode', MODES)
def test_verbs_of_a_detector(net, mode, tmp_path):
    "predict, tta and evaluate at once, with a detector that comes from a file and was put into another mode"
    from PIL import Image
    files = []
    for i, o in enumerate(images()): files.append(tmp_path/f'{i}.png'); Image.fromarray(o).save(files[-1])
    recs = [GroundTruth([[5,5,30,30]], ['cat'], size=o.shape[:2], file=f) for f, o in zip(files, images())]
    det  = load_detector(save_detector(Detector(in_mode(net, mode), VOCAB, 64, thresholds=ALL), tmp_path/'m.safetensors'))
    in_mode(det.model, mode)
    verbs = [lambda: det.predict(files[0])[2], lambda: det.tta(files)[1].scores, lambda: det.detect(files, bs=2)[2].scores,
             lambda: torch.tensor([det.evaluate(recs, score=0., progress=False).map])]
    with untouched(det.model):
        want = [f() for f in verbs]
        for a, b in zip(in_threads(lambda f: f(), verbs*6), want*6): assert torch.allclose(a, b, atol=1e-5)

def test_learner(net, tmp_path):
    "The learner's verbs and the interpretation, while it is in training mode, as it is when its weights were just loaded"
    pytest.importorskip('fastai')
    from fastai.vision.all import set_seed
    from ssd_fastai.data import DetectionDataLoaders
    from ssd_fastai.interpret import DetectionInterpretation
    from ssd_fastai.learner import ssd_learner
    from ssd_fastai.synth import synth_voc
    data = synth_voc(tmp_path/'shapes', n=16, seed=1)
    dls  = DetectionDataLoaders.from_voc(data, size=64, bs=4, num_workers=0, verify=False)
    set_seed(0)
    learn = ssd_learner(dls, 'resnet18', pretrained=False, path=tmp_path)
    learn.thresholds = ALL
    learn.model.train()
    recs  = dls.train_ds.items[:6]
    verbs = [lambda: learn.detect(recs)[3].scores, lambda: learn.predict(recs[1])[2], lambda: learn.tta(0)[0].scores,
             lambda: next(learn.detect(iter(recs))).scores,
             lambda: DetectionInterpretation.from_learner(learn).losses]
    with untouched(learn.model), learn.no_bar():
        want = [f() for f in verbs]
        for a, b in zip(in_threads(lambda f: f(), verbs*4), want*4): assert torch.allclose(a, b, atol=1e-4)
        map_ = learn.evaluate(progress=False).map
        assert in_threads(lambda _: learn.evaluate(progress=False).map, range(8)) == [map_]*8

def as_bytes(o):
    from io import BytesIO
    from PIL import Image
    raw = BytesIO()
    Image.fromarray(o).save(raw, 'PNG')
    return raw.getvalue()

@pytest.mark.parametrize('mode', MODES)
def test_bytes_and_tiles(net, mode):
    "Whole and in tiles, from the bytes of a file, from several threads"
    det  = Detector(in_mode(net, mode), VOCAB, 64, thresholds=ALL)
    jobs = [(raw, tile, bs) for raw in map(as_bytes, images()) for tile, bs in ((None,16), (40,3), ((30,50),16))]
    find = lambda o: det.detect(o[0], tile=o[1], bs=o[2])
    with untouched(net):
        want = [find(o) for o in jobs]
        for a, b in zip(in_threads(find, jobs*2), want*2): same_set(a, b)

@pytest.mark.parametrize('suppress', [False, True])
def test_onnx(net, suppress, tmp_path):
    "A session of ONNX Runtime, whole, in tiles and from bytes, from several threads"
    for o in ('onnx', 'onnxscript', 'onnxruntime'): pytest.importorskip(o, reason=f'ONNX needs {o}: pip install {o}')
    from ssd_fastai.onnx import export_onnx
    det  = Detector(in_mode(net, 'evaluation'), VOCAB, 64, thresholds=ALL, tile=70, tile_overlap=0.3)
    onnx = load_detector(export_onnx(det, tmp_path/'m.onnx', suppress=suppress))
    assert (onnx.tile, onnx.tile_overlap) == ((70,70), 0.3)
    jobs = [(o, tile) for im in images() for o in (im, as_bytes(im)) for tile in (0, None, 40)]
    find = lambda o: onnx.detect(o[0], tile=o[1])
    want = [find(o) for o in jobs]
    for a, b in zip(in_threads(find, jobs*2), want*2): same_set(a, b)
    for o, b in zip(jobs, want): same_set(det.detect(o[0], tile=o[1]), b, 1e-3)

def test_opening_images_leaves_the_warnings_alone(tmp_path):
    "Filters of warnings belong to all threads: opening images changes none, and warns of none"
    import warnings
    from PIL import Image
    from ssd_fastai.images import image_size, load_image
    file = tmp_path/'wide.png'
    Image.new('1', (95_000,1000)).save(file)   # above Pillow's own limit
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        before = list(warnings.filters)
        assert in_threads(lambda _: image_size(file), range(64)) == [(1000,95_000)]*64
        assert warnings.filters==before and not seen

def test_view_shares_what_is_learned(net):
    "Parameters and buffers are the same tensors; what is set on the view stays there; no module of the model is in it"
    view = evaluation_view(in_mode(net, 'training'))
    for a, b in ((net.named_parameters(), view.named_parameters()), (net.named_buffers(), view.named_buffers())):
        a, b = dict(a), dict(b)
        assert a.keys()==b.keys() and all(a[k] is b[k] for k in a)
    assert not {id(o) for o in net.modules()} & {id(o) for o in view.modules()}
    with untouched(net), torch.no_grad(): view(torch.rand(1,3,128,96))
    assert view.grids != net.grids

def test_view_of_modules_that_occur_twice():
    "One module in two places stays one; `None` in the place of a module stays None"
    norm = nn.BatchNorm2d(3)
    net  = nn.Sequential(norm, nn.ReLU(), norm)
    net.register_module('nothing', None)
    view = evaluation_view(net)
    assert view[0] is view[2] and view.nothing is None and not view[0].training and norm.training

def test_view_of_scripted_modules():
    "A scripted module in training mode is copied, one in evaluation mode is used as it is"
    net = nn.Sequential(torch.jit.script(nn.BatchNorm2d(3)))
    x   = torch.randn(2,3,4,4)
    assert torch.allclose(evaluation_view(net)(x), x, atol=1e-4) and net[0].training
    assert net[0].num_batches_tracked==0
    net.eval()
    assert evaluation_view(net)[0] is net[0]

def test_view_of_compiled_modules():
    "`torch.compile` keeps code that belongs to the module it was made of: the view runs without it"
    x = torch.randn(2,3,4,4)
    norm,inside = nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3))
    inside[0].compile()
    for net in (torch.compile(norm), inside): assert torch.allclose(evaluation_view(net)(x), x, atol=1e-4)
    assert norm.num_batches_tracked==0 and inside[0].num_batches_tracked==0
