"The ladder's rungs: the lowest is the post, mistake for mistake; each rung changes one thing; all of them train; the top one is the default."
import json, sys
from pathlib import Path
import pytest, torch
import torch.nn.functional as F
from fastcore.test import test_close as close

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'benchmarks'))
import ladder, post
from ssd_fastai.alignment import check_alignment
from ssd_fastai.learner import fused_adamw, ssd_learner
from ssd_fastai.losses import SSDLoss
from ssd_fastai.classic import CLASSIC_THRESHOLDS, actn_to_bb
from ssd_fastai.match import match_anchors
from ssd_fastai.model import create_ssd

# ---- the post as it is written: loops, image by image

def post_anchors(grids=(4,2,1)):
    "cx slow, cy fast; three zooms of three ratios"
    res,k = [],[(z*i, z*j) for z in (0.7,1.,1.3) for i,j in ((1.,1.),(1.,0.5),(0.5,1.))]
    for g in grids:
        line = torch.linspace(2/(g*2)-1, 1-2/(g*2), g).tolist()
        res += [(a,b,2*w/g,2*h/g) for a in line for b in line for w,h in k]
    return torch.tensor(res)

def post_class_loss(x, t, C):
    "The post's `BCE_Loss` of one image, without its copies to the GPU"
    t,x = torch.eye(C)[t][:,1:],x[:,1:]
    p   = x.sigmoid()
    w   = (0.25*t + 0.75*(1-t))*(1-(p*t + (1-p)*(1-t)))
    return F.binary_cross_entropy_with_logits(x, t, w.detach(), reduction='sum')/(C-1)

def post_loss(pred, boxes, labels, anchors, cells):
    regression = 0.
    for x,o,b,l in zip(*pred, boxes, labels):
        b,l,a = b[l>0],l[l>0],torch.cat([anchors[:,:2]-anchors[:,2:]/2, anchors[:,:2]+anchors[:,2:]/2], 1)
        over  = torch.zeros(len(b), len(a))
        for i,p in enumerate(b):
            for j,q in enumerate(a):
                inter = max(0, max(p[0],q[0])-min(p[2],q[2])) * max(0, max(p[1],q[1])-min(p[3],q[3]))
                over[i,j] = inter/((p[2]-p[0])*(p[3]-p[1]) + (q[2]-q[0])*(q[3]-q[1]) - inter)
        best,own = over.max(0)
        for i,j in enumerate(over.max(1).indices): best[j],own[j] = 1.99,i
        t    = o.tanh()
        ctr,wh = t[:,:2]/2*cells + anchors[:,:2], (t[:,2:]/2+1)*anchors[:,2:]
        said = torch.cat([ctr-wh/2, ctr+wh/2], 1)
        regression = regression + (said-b[own])[best>0.4].abs().mean()
        classes = post_class_loss(x, l[own], x.shape[1])
    return regression + classes      # the last image's

@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    m = create_ssd('resnet18', 4, 64, head='classic')
    m.recipe = post.PostRecipe(m.recipe.zooms, m.recipe.ratios)
    m.set_grids([(4,4),(2,2),(1,1)])
    return m

def test_anchors_are_the_posts(model): close(model.anchors, post_anchors(), eps=1e-6)

def test_loss_is_the_posts(model):
    torch.manual_seed(1)
    xy     = torch.rand(2,3,2)*1.4-1
    boxes  = torch.cat([xy, xy+0.1+torch.rand(2,3,2)*0.5], -1)
    labels = torch.tensor([[1,3,0],[2,1,3]])
    pred   = [o.requires_grad_() for o in (torch.randn(2,189,4), torch.randn(2,189,4))]
    ours,theirs = post.PostLoss(model)(pred, boxes, labels),post_loss(pred, boxes, labels, model.anchors, model.cells)
    close(ours, theirs, eps=1e-4)
    for a,b in zip(*(torch.autograd.grad(o, pred) for o in (ours,theirs))): close(a, b, eps=1e-5)
    assert not torch.autograd.grad(post.PostLoss(model)(pred, boxes, labels), pred)[0][0].any()               # S7: the first image teaches no class
    assert torch.autograd.grad(post.PostLoss(model, batch=True)(pred, boxes, labels), pred)[0][0].any()

def test_cured_loss_is_the_packages(model):
    "With everything cured it is `SSDLoss` but for the box loss"
    torch.manual_seed(2)
    boxes,labels = torch.tensor([[[-.5,-.5,.2,.1]],[[0.,0.,.9,.9]]]),torch.tensor([[1],[2]])
    pred  = torch.randn(2,189,4),torch.randn(2,189,4)
    cured = post.PostLoss(model, True, True, True, True, True, True)
    cls,box,n = SSDLoss(model).parts(pred, boxes, labels)
    close(cured(pred, boxes, labels)-corners(model, pred, boxes, labels), cls.mean(), eps=1e-4)

def corners(model, pred, boxes, labels):
    "L1 of corners over the anchors that `SSDLoss` takes, by hand"
    target,idx = match_anchors(model.anchors, boxes, labels)
    said = actn_to_bb(pred[1], model.anchors, model.cells)
    i,a  = (target>0).nonzero(as_tuple=True)
    return (said[i,a]-boxes[i,idx[i,a]]).abs().sum()/len(i)

def test_swapped_scores():
    "Two objects, three candidates: the third anchor's box is the best, the second's is its duplicate"
    boxes  = torch.tensor([[0.,0,10,10],[20.,20,31,30],[20.,20,30,30]])
    scores = torch.tensor([[.3],[.6],[.9]])
    b,l,s  = post.post_detections(boxes, scores)
    assert b.tolist()==[boxes[2].tolist(),boxes[0].tolist()] and l.tolist()==[1,1]
    close(s, torch.tensor([.6,.6]))                                                    # one score for both, and neither's
    close(post.post_detections(boxes, scores, label=True)[2], torch.tensor([.3,.6]))   # the best box with the worst score
    assert len(post.post_detections(boxes, scores, thresholds=CLASSIC_THRESHOLDS.changed(score=0.95))[0])==0

# ---- the rungs

def test_each_rung_changes_one_thing():
    runs = ladder.rungs()
    rows = [o for r in runs for o in r.rows]
    assert [o[0] for o in rows]==['post', *ladder.NAMES]
    assert [o[2] for o in rows[:12]]==['last']*11+['order'] and {o[2] for o in rows[12:-2]}=={'own'} and {o[2] for o in rows[-2:]}=={'votes'}
    for a,b in zip(runs, runs[1:]): assert a.on<b.on and len(b.on-a.on-{'label','scores','votes'})==1
    assert not runs[0].on and runs[-2].on==ladder.TODAY and runs[-1].on-ladder.TODAY=={'frozen'}

def test_epochs_of_the_stages():
    for start in ('random','all','frozen','unfreezing'):
        run = ladder.Run('bccd', ladder.TODAY, (), start=start)
        for n in range(1,30): assert sum(e for _,e,_ in ladder.plan(run, n))==n
    assert [f for f,*_ in ladder.plan(run, 10)]==[2,1,0]

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "The same ladder on few and small images"
    was = ladder.WORK,dict(ladder.SETS['shapes'])
    ladder.WORK = tmp_path_factory.mktemp('ladder')
    ladder.SETS['shapes'].update(size=64, bs=4)
    yield ladder.splits.__wrapped__('shapes', 8)
    ladder.WORK = was[0]
    ladder.SETS['shapes'].update(was[1])

@pytest.mark.parametrize('run', ladder.rungs(), ids=lambda r: r.rows[0][0])
def test_rungs_train(run, small, capsys):
    learn,_ = ladder.make_learner(run, small, 1)
    before  = learn.model.head.state_dict()
    before  = {k:v.clone() for k,v in before.items()}
    with learn.no_bar(), learn.no_logging(): ladder.fit(run, learn, 1)
    after = learn.model.head.state_dict()
    assert all(v.isfinite().all() for v in after.values()) and any((v!=before[k]).any() for k,v in after.items())
    found = ladder.measure(learn, small[1])
    assert set(found)==set(ladder.WAYS) and all(0<=o.voc12<=1 for o in found.values())
    if len(run.on)==0 or run.on>=ladder.TODAY:   # one protocol
        ev,way = learn.evaluate(progress=False),found['votes' if run.on else 'own']
        close(way.voc12, ev.voc12); close(way.coco, ev.coco)
    if 'normalise' not in run.on: assert bool(check_alignment(learn.model, 128))==({'aligned','axes'}<=run.on)   # at 64 px all maps have one cell
    start = ladder.make_learner(run, small, 1)[0].model.eval()(torch.rand(1,3,64,64))[0].sigmoid().mean()
    assert (start<0.03)==('prior' in run.on)

def marks(run, parts):
    "All that a rung can change: one entry each for model, loss, data, optimiser and schedule"
    learn,how = ladder.make_learner(run, parts, 1)
    m = learn.model
    c,b = m.eval()(torch.linspace(0, 1, 3*64*64).view(1,3,64,64))
    torch.manual_seed(0)
    pred = torch.randn(2,len(m.anchors),len(learn.dls.vocab)),torch.randn(2,len(m.anchors),4)
    pred = [o.requires_grad_() for o in pred]
    loss = learn.loss_func(pred, torch.tensor([[[-.8,-.7,-.1,.1],[.2,.1,.7,.8]]]*2), torch.tensor([[1,2]]*2))
    pull = torch.autograd.grad(loss, pred)
    return [type(m.head).__name__, tuple(o.shape for o in (c,b)), (c[0]*torch.arange(c.shape[1])[:,None]).sum().item(), m.anchors.sum(0).tolist(), m.anchors[::7].tolist(), type(m.coder).__name__, loss.item(),
            pull[0].abs().sum().item(), repr(learn.dls.after_item), learn.opt_func, how, next(m.parameters()).is_contiguous(memory_format=torch.channels_last),
            'cycle' in run.on, 'average' in run.on, ladder.plan(run, 12)]

def test_no_rung_is_empty(small):
    all_marks = {r.rows[0][0]: marks(r, small) for r in ladder.rungs()}
    names = list(all_marks)
    assert not [b for a,b in zip(names, names[1:]) if all_marks[a]==all_marks[b]]

def test_the_top_is_the_default(small):
    top = ladder.rungs()[-2]
    learn,_ = ladder.make_learner(top, small, 1)
    ours    = ssd_learner(learn.dls, 'tf_efficientnet_lite0')
    assert ladder.package_args(top.on)=={} and learn.model.config==ours.model.config and learn.opt_func is ours.opt_func is fused_adamw
    assert type(learn.loss_func) is SSDLoss
    same = lambda o: {k:v for k,v in vars(o.loss_func).items() if not k.startswith('_') and k!='model'}
    assert same(learn)==same(ours)
    assert repr(learn.dls.after_item)!=repr(ladder.make_dls(ladder.rungs()[-3], small).after_item)

def test_without_takes_one_change_away(small):
    runs = {r.rows[0][0].removeprefix('without '): r for r in ladder.without()}
    assert all(ladder.TODAY-r.on=={k, *(['augment'] if k=='flip' else [])} for k,r in runs.items())
    band,giou = (ladder.make_learner(runs[o], small, 1)[0].loss_func for o in ('band','giou'))
    assert type(band) is SSDLoss and band.pos==band.neg==0.4 and giou.band and type(giou) is not SSDLoss
    steps = {k: repr(ladder.make_dls(r, small).after_item) for k,r in runs.items()}
    assert len({steps[o] for o in ('band','flip','augment')})==3

def test_fairer():
    row = lambda seconds,epochs: ladder.fairer(dict(seconds=seconds, epochs=epochs, budget=60))
    assert [row(38.6, 3), row(75.3, 6), row(66., 6), row(140., 1)]==[5,5,None,None]
    assert ladder.fairer(dict(seconds=38.6, epochs=3, budget=60, replanned=True)) is None

def test_a_stopped_ladder_goes_on(tmp_path, monkeypatch, capsys):
    "Rows are kept one run at a time; what is there is not measured again; another budget is refused"
    out,done = tmp_path/'rows.json',[]
    def climb(run, s, budget, n, epochs=None):
        done.append((run.rows[0][0], s))
        if len(done)==3: raise KeyboardInterrupt
        way = dict(voc12=0.5, coco=0.2)
        return [dict(data=run.data, rung=o[0], seed=s, **way, interval=dict(voc12=[0.4,0.6]), way=o[2], ways=dict(own=way), seconds=budget, epochs=1, budget=budget, n=n) for o in run.rows]
    monkeypatch.setattr(ladder, 'climb', climb)
    monkeypatch.setattr(sys, 'argv', ['ladder.py', '--only', 'shapes', '--out', str(out)])
    with pytest.raises(KeyboardInterrupt): ladder.main()
    assert [o['rung'] for o in json.loads(out.read_text())]==['post','cycle']
    ladder.main()
    assert done[2:4]==[('fused',1)]*2 and len(done)==1+2*len(ladder.rungs()) and out.with_suffix('.png').exists()
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--budget', '3', '--again'])
    with pytest.raises(SystemExit, match='another --budget'): ladder.main()
