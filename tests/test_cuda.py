"On a GPU: the same results as on a CPU, in every precision. Skipped where there is no GPU."
import pytest, torch
from fastai.vision.all import *
from ssd_fastai.all import *
from ssd_fastai.ceiling import perfect_output

for o in [o for o in globals() if o.startswith('test')]: del globals()[o]   # fastcore's own, which pytest would collect
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')

def learner(path, **kwargs):
    set_seed(0, reproducible=True)
    dls = DetectionDataLoaders.from_voc(synth_voc(path/'shapes', n=60, seed=1), size=96, bs=8, verify=False, **kwargs)
    return ssd_learner(dls, resnet18, pretrained=False, path=path)

def quietly(learn, f):
    with learn.no_bar(), learn.no_logging(): return f()

@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    learn = learner(tmp_path_factory.mktemp('cuda'), num_workers=2)
    quietly(learn, lambda: learn.fit_one_cycle(3, 2e-3, cbs=AverageWeights()))
    return learn

@pytest.fixture(scope='module')
def both(learn, tmp_path_factory):
    "The same detector on the processor and on the card"
    f = save_detector(learn, tmp_path_factory.mktemp('model')/'model.safetensors')
    here,there = load_detector(f),load_detector(f)
    there.model.to('cuda')
    return here,there

@pytest.mark.parametrize('precision', ['float32','bf16','fp16'])
def test_trains(precision, tmp_path):
    learn = learner(tmp_path)
    if precision != 'float32': getattr(learn, f'to_{precision}')()
    quietly(learn, lambda: learn.fit_one_cycle(4, 2e-3, cbs=AverageWeights()))
    losses = L(learn.recorder.values).itemgot(0)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert {p.device.type for p in learn.model.parameters()} == {'cuda'} and learn.model.anchors.device.type == 'cuda'

def test_same_detections(learn, both):
    x = learn.dls.valid.one_batch()[0]
    (b,s),(bc,sc) = (o.forward(x.cpu()) for o in both)
    assert bc.device.type == 'cuda'
    assert (s-sc.cpu()).abs().max() < 0.01 and (b-bc.cpu()).abs().max() < 0.01   # TF32 rounds

def test_same_matches(learn):
    _,boxes,labels,difficult = (o.as_subclass(Tensor) for o in learn.dls.one_batch())
    a = learn.model.anchors
    for on_card,here in zip(match_anchors(a, boxes, labels, difficult), match_anchors(*(o.cpu() for o in (a, boxes, labels, difficult)))):
        assert (on_card.cpu() == here).float().mean() > 0.999   # a fused multiplication may tip an IoU over the threshold

def test_same_suppression():
    torch.manual_seed(0)
    boxes = torch.rand(2, 400, 4)
    boxes[..., 2:] = boxes[..., :2] + 0.2*boxes[..., 2:]
    scores = torch.rand(2, 400, 3)
    for on_card,here in zip(suppress(boxes.cuda(), scores.cuda()), suppress(boxes, scores)):
        for a,b in zip(on_card, here): assert torch.equal(a.cpu(), b)

def test_evaluates_alike(learn, both):
    recs = learn.dls.valid_ds.items
    evs  = learn.evaluate(),*(o.evaluate(recs, progress=False) for o in both)
    assert max(o.voc12 for o in evs)-min(o.voc12 for o in evs) < 0.02

def test_untrained(tmp_path):
    learn = learner(tmp_path)
    xb,*yb = learn.dls.one_batch()
    assert torch.isfinite(learn.loss_func(learn.model(xb), *yb))   # the model is where the batches are before any fit
    logits,offsets,_ = perfect_output(learn.model, *(o.as_subclass(Tensor) for o in yb), n_classes=len(learn.dls.vocab))
    assert learn.loss_func((logits, offsets), *yb) < 0.1

def test_learner_methods(learn):
    assert np.isfinite(quietly(learn, lambda: learn.lr_find(num_it=20, show_plot=False)).valley)
    f = learn.dls.valid_ds.items[0].file
    assert learn.detect(f, score=0.).boxes.device.type == 'cpu'
    n = len(learn.dls.valid_ds)
    assert len(learn.tta()) == len(DetectionInterpretation.from_learner(learn).losses) == n
    quietly(learn, lambda: learn.validate())

def test_export(learn, tmp_path):
    det = load_detector(export_onnx(learn, tmp_path/'m.onnx'))   # verifies itself against torch on the processor
    assert det.vocab == learn.dls.vocab and next(learn.model.parameters()).is_cuda

def test_step_does_not_wait_for_the_device(tmp_path):
    "Network, loss, gradient and optimiser, after a first step, without a synchronisation"
    learn = learner(tmp_path)
    learn.unfreeze()
    learn.create_opt()
    x,*targets = learn.dls.one_batch()
    def step():
        learn.loss_func(learn.model(x), *targets).backward()
        learn.opt.step()
        learn.opt.zero_grad()
    step()
    torch.cuda.set_sync_debug_mode('error')
    try: step()
    finally: torch.cuda.set_sync_debug_mode('default')
