"""Every loss of `SSDLoss` and of the functions behind it passes torch's `gradcheck` in float64.

The one exception has a name: `detach_weight`, the seed's form, in which the focal weight is held fixed on purpose."""
import pytest, torch
from torch.autograd import gradcheck

from ssd_fastai.anchors import AnchorRecipe
from ssd_fastai.losses import SSDLoss, box_loss, class_loss
from ssd_fastai.match import BoxCoder, match_anchors

class Model:
    "What a loss reads of a model"
    def __init__(self, encoding):
        self.encoding = encoding
        self.anchors,self.cells = AnchorRecipe(zooms=(0.9,), ratios=((1.,1.),(1.,.5))).make([3, 2])

def batch(seed=0, c=4):
    "Logits and offsets that need gradients, and targets: three images, the last without objects, one object difficult"
    g = torch.Generator().manual_seed(seed)
    n = len(Model('variance').anchors)
    pred = [torch.randn(3, n, o, generator=g, dtype=torch.float64)*0.7 for o in (c, 4)]
    xy = torch.rand(3, 2, 2, generator=g)*0.9-0.95
    boxes = torch.cat([xy, xy+torch.rand(3, 2, 2, generator=g)*0.6+0.4], -1)
    labels = torch.tensor([[1,3],[2,1],[0,0]])
    return [o.requires_grad_() for o in pred], boxes, labels, torch.tensor([[False,False],[False,True],[False,False]])

@pytest.mark.parametrize('encoding', ['variance', 'tanh'])
@pytest.mark.parametrize('box', SSDLoss.kinds)
@pytest.mark.parametrize('reduction', ['mean', 'none'])
def test_ssd_loss(box, encoding, reduction):
    loss = SSDLoss(Model(encoding), box=box, box_weight=2., reduction=reduction)
    (x,o),*y = batch()
    assert loss.parts((x,o), *y)[2] > 2
    assert gradcheck(lambda x,o: loss((x,o), *y), (x,o))

@pytest.mark.parametrize('alpha', [None, 0.25, 0.9])
@pytest.mark.parametrize('gamma', [0., 0.5, 1., 2.])
def test_class_loss(alpha, gamma):
    (x,_),boxes,labels,hard = batch(1)
    target,_ = match_anchors(Model('variance').anchors, boxes, labels, hard)
    assert {-1,0,1} <= set(target.unique().tolist())
    assert gradcheck(lambda x: class_loss(x, target, alpha, gamma), (x,))

@pytest.mark.parametrize('encoding', ['variance', 'tanh'])
@pytest.mark.parametrize('kind', SSDLoss.kinds)
def test_box_loss(kind, encoding):
    (_,o),boxes,*_ = batch(2)
    m = Model(encoding)
    o = o.detach()[0,:6].requires_grad_()
    to = boxes[0,:1].expand(6,-1).double() + torch.linspace(0, 0.2, 6, dtype=torch.float64)[:,None]
    assert gradcheck(lambda o: box_loss(o, to, m.anchors[:6].double(), m.cells[:6].double(), BoxCoder(encoding), kind), (o,))

def test_detach_weight_is_the_exception():
    (x,_),boxes,labels,hard = batch(1)
    target,_ = match_anchors(Model('variance').anchors, boxes, labels, hard)
    f = lambda x: class_loss(x, target, 0.25, 1., detach_weight=True)
    assert not gradcheck(f, (x,), raise_exception=False)
    p = x[...,1:].detach().sigmoid()                       # what it should be: the weight times the gradient of plain cross-entropy
    t = (target[...,None]==torch.arange(1, 4)).double()
    w = torch.where(t>0, 0.25*(1-p), 0.75*p) * (target>=0)[...,None]
    f(x).sum().backward()
    assert torch.allclose(x.grad[...,1:], w*(p-t))
