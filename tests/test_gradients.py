"""Every loss, with every box coder, passes torch's `gradcheck` in float64.

Two exceptions have a name. CIoU's weight of the aspect term is held fixed by torchvision, so its value and gradient are compared
with torchvision's. And `detached_focal_weight`, the post's, lets no gradient through on purpose."""
from types import SimpleNamespace

import pytest, torch
from torch.autograd import gradcheck
from torchvision import ops

from ssd_fastai.anchors import AnchorRecipe
from ssd_fastai.augment import Moves, sample_pixels, shift_colours
from ssd_fastai.classic import TanhCoder, detached_focal_weight
from ssd_fastai.losses import BOX_LOSSES, SSDLoss, box_loss, class_loss
from ssd_fastai.match import BoxCoder, match_anchors

CODERS = {'variance': BoxCoder(), 'tanh': TanhCoder()}
EXACT  = [o for o in BOX_LOSSES if o!='ciou']   # the losses whose gradient is that of their value

coders = pytest.mark.parametrize('coder', CODERS.values(), ids=CODERS)

class Model:
    "What a loss reads of a model"
    def __init__(self, coder=BoxCoder()):
        self.coder = coder
        self.anchors,self.cells = AnchorRecipe(zooms=(0.9,), ratios=((1.,1.),(1.,.5))).make([3, 2])

def batch(seed=0, c=4):
    "Logits and offsets that need gradients, and targets: three images, the last without objects, one object difficult"
    g = torch.Generator().manual_seed(seed)
    n = len(Model().anchors)
    pred = [torch.randn(3, n, o, generator=g, dtype=torch.float64)*0.7 for o in (c, 4)]
    xy = torch.rand(3, 2, 2, generator=g)*0.9-0.95
    boxes = torch.cat([xy, xy+torch.rand(3, 2, 2, generator=g)*0.6+0.4], -1)
    labels = torch.tensor([[1,3],[2,1],[0,0]])
    return [o.requires_grad_() for o in pred], boxes, labels, torch.tensor([[False,False],[False,True],[False,False]])

def six_rows(coder):
    "Offsets of six anchors, which need gradients, and the rest of what a box loss takes, in float64"
    (_,o),boxes,*_ = batch(2)
    m  = Model(coder)
    to = boxes[0,:1].expand(6,-1).double() + torch.linspace(0, 0.2, 6, dtype=torch.float64)[:,None]
    return o.detach()[0,:6].requires_grad_(), to, m.anchors[:6].double(), m.cells[:6].double()

@coders
@pytest.mark.parametrize('box', EXACT)
@pytest.mark.parametrize('reduction', ['mean', 'none'])
def test_ssd_loss(box, coder, reduction):
    loss = SSDLoss(Model(coder), box=box, box_weight=2., reduction=reduction)
    (x,o),*y = batch()
    assert loss.parts((x,o), *y)[2] > 2
    assert gradcheck(lambda x,o: loss((x,o), *y), (x,o))

@pytest.mark.parametrize('alpha', [None, 0.25, 0.9])
@pytest.mark.parametrize('gamma', [0., 0.5, 1., 2.])
def test_class_loss(alpha, gamma):
    (x,_),boxes,labels,hard = batch(1)
    target,_ = match_anchors(Model().anchors, boxes, labels, hard)
    assert {-1,0,1} <= set(target.unique().tolist())
    assert gradcheck(lambda x: class_loss(x, target, alpha, gamma), (x,))

@coders
@pytest.mark.parametrize('kind', EXACT)
def test_box_loss(kind, coder):
    o,to,anchors,cells = six_rows(coder)
    assert gradcheck(lambda o: box_loss(o, to, anchors, cells, coder, kind), (o,))

@coders
@pytest.mark.parametrize('kind, theirs', [('giou', ops.generalized_box_iou_loss), ('diou', ops.distance_box_iou_loss),
                                          ('ciou', ops.complete_box_iou_loss)])
def test_as_torchvisions(kind, theirs, coder):
    "Value and gradient; ours differs a little, since it clamps its denominators at 1e-7, and torchvision adds 1e-7"
    o,to,anchors,cells = six_rows(coder)
    ours,want = box_loss(o, to, anchors, cells, coder, kind), theirs(coder.decode(o, anchors, cells), to)
    assert torch.allclose(ours, want, atol=1e-6)
    a,b = (torch.autograd.grad(x.sum(), o)[0] for x in (ours, want))
    assert a.abs().max()>0 and torch.allclose(a, b, atol=1e-6)

@coders
def test_ciou_holds_a_weight_fixed(coder):
    "If this fails, torchvision has changed, and CIoU belongs to `EXACT`"
    o,to,anchors,cells = six_rows(coder)
    assert not gradcheck(lambda o: box_loss(o, to, anchors, cells, coder, 'ciou'), (o,), raise_exception=False)

def test_unknown_names():
    o,to,anchors,cells = six_rows(BoxCoder())
    for f in (lambda: box_loss(o, to, anchors, cells, BoxCoder(), 'l2'), lambda: SSDLoss(Model(), box='l2')):
        with pytest.raises(ValueError, match="'l2'.*l1, smooth_l1, giou, diou, ciou"): f()

def test_detached_focal_weight_is_the_exception():
    (x,_),boxes,labels,hard = batch(1)
    target,_ = match_anchors(Model().anchors, boxes, labels, hard)
    f = lambda x: class_loss(x, target, 0.25, 1., focal=detached_focal_weight)
    assert torch.allclose(f(x), class_loss(x, target, 0.25, 1.))
    assert not gradcheck(f, (x,), raise_exception=False)
    p = x[...,1:].detach().sigmoid()           # the gradient should be the weight times that of plain cross-entropy
    t = (target[...,None]==torch.arange(1, 4)).double()
    w = torch.where(t>0, 0.25*(1-p), 0.75*p) * (target>=0)[...,None]
    f(x).sum().backward()
    assert torch.allclose(x.grad[...,1:], w*(p-t))

@coders
@pytest.mark.parametrize('box', BOX_LOSSES)
def test_gradient_descent_lowers_the_loss(box, coder):
    "Twenty steps on the predictions themselves"
    loss   = SSDLoss(Model(coder), box=box)
    pred,*y = batch(3)
    first  = loss(pred, *y).item()
    for _ in range(20):
        grads = torch.autograd.grad(loss(pred, *y), pred)
        pred  = [(o-0.3*g).detach().requires_grad_() for o,g in zip(pred, grads)]
    assert loss(pred, *y).item() < first

@coders
def test_decoding(coder):
    "The gradient of decoding, float32 under mixed precision, batched equals single, no rows at all"
    m = Model(coder)
    (_,o),*_ = batch(4)
    three = m.anchors[:3].double(),m.cells[:3].double()
    assert gradcheck(lambda x: coder.decode(x, *three), (o.detach()[0,:3].requires_grad_(),))
    x = o.detach().float()
    with torch.autocast('cpu', torch.bfloat16): half = coder.decode(x.bfloat16(), m.anchors, m.cells)
    assert half.dtype==torch.float32 and torch.equal(half, coder.decode(x.bfloat16().float(), m.anchors, m.cells))
    boxes = coder.decode(x, m.anchors, m.cells)
    assert torch.allclose(coder.encode(boxes, m.anchors, m.cells), x, atol=1e-2)
    assert torch.equal(boxes[1], coder.decode(x[1], m.anchors, m.cells))
    assert coder.decode(x[:,:0], m.anchors[:0], m.cells[:0]).shape==(3,0,4)

def test_a_change_of_coder_changes_the_loss():
    pred,*y = batch(5)
    m    = Model(TanhCoder())
    loss = SSDLoss(m, box='l1')
    tanh = loss(pred, *y).item()
    m.coder = BoxCoder()
    assert loss(pred, *y).item()!=tanh

@pytest.mark.parametrize('box', BOX_LOSSES)
def test_no_step_waits_for_the_device(box):
    "On torch's device `meta` whatever asks for a value, or for a size that depends on values, is an error: matching, loss and gradient need none"
    with torch.device('meta'):
        anchors = torch.rand(516, 4)
        pred    = [torch.randn(2, 516, 4).requires_grad_() for _ in range(2)]
        batch   = torch.rand(2, 3, 4), torch.ones(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool)
    loss = SSDLoss(SimpleNamespace(anchors=anchors, cells=anchors[:,2:], coder=BoxCoder()), box=box)
    loss(pred, *batch).backward()
    assert pred[0].grad.shape == pred[1].grad.shape == (2, 516, 4)
    for asks in (lambda x: x.nonzero(), lambda x: x[x>0], lambda x: x.sum().item()):
        with pytest.raises((NotImplementedError, RuntimeError)): asks(anchors)

def test_no_augmentation_waits_for_the_device():
    with torch.device('meta'):
        images = torch.zeros(2, 64, 96, 3, dtype=torch.uint8)
        moves  = Moves(torch.rand(2, 4), torch.rand(2, 4), torch.zeros(2, dtype=torch.bool))
        x = sample_pixels(images, moves, (32, 48))
        assert shift_colours(x/255, torch.rand(2, 3)).shape == (2, 3, 32, 48)
