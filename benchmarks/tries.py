"""What would make the default better? Changes tried one at a time beside it, on four validation splits.

    python benchmarks/tries.py --costs base width64 …   # first, with nothing else running: what a step costs
    python benchmarks/tries.py base width64 …           # then the trainings; rows into benchmarks/results/tries.json
    python benchmarks/tries.py --table                  # what is there

Every change gets the same computing time as `base`: `--costs` lets steps of both take turns, and a change whose step costs 0.7 of the base's trains on
1/0.7 of its images. So the trainings may share the machine: two of them side by side (OMP_NUM_THREADS=1) take less time than one after the other.
`--minutes` is what the base's images take on two quiet cores (see SETS). AP is measured on the validation split; the test splits are not touched.
"""
import argparse, json, os, statistics, time, warnings
from functools import partial

from accuracy import splits_of
from bccd import ROOT, machine, write
from speed import NoValidation

RESULTS = ROOT/'benchmarks'/'results'/'tries.json'
ARCH    = 'tf_efficientnet_lite0'
# the size of the input, `ssd-train`'s default, and how many images the base trains on per minute on two cores. Rows with another size were measured
# when it was chosen for each set
SETS = dict(bccd=((352,480), 660), neu=((224,224), 1950), helmet=((384,480), 550), shapes=((192,224), 2450))

def order(records, n, seed):
    "`n` records: the training set over and over, each time in another order"
    import random
    rng,res = random.Random(seed),[]
    while len(res)<n: res += rng.sample(list(records), len(records))
    return type(records)(res[:n])

# ------------------------------------------------------------------------------------------------ the changes
def pair_iou(a, b):
    "IoU [N] of boxes [N,4] xyxy with boxes [N,4]"
    import torch
    inter = (torch.min(a[:,2:], b[:,2:])-torch.max(a[:,:2], b[:,:2])).clamp(min=0).prod(1)
    return inter/(sum((o[:,2:]-o[:,:2]).prod(1) for o in (a,b))-inter).clamp(min=1e-7)

def quality_loss(kind, beta=2., alpha=0.75, **kwargs):
    "An `SSDLoss` whose positive anchors should score the IoU of their decoded box: quality focal ('qfl') or varifocal ('vfl')"
    import torch, torch.nn.functional as F
    from ssd_fastai.losses import SSDLoss
    from ssd_fastai.match import to_float32
    class QualityLoss(SSDLoss):
        def by_anchor(self, pred, boxes, labels, difficult=None):
            cls,box,target,idx = super().by_anchor(pred, boxes, labels, difficult)
            logits,offsets = (to_float32(o) for o in pred)
            b,a = (target>0).nonzero(as_tuple=True)
            if not len(b): return cls, box, target, idx
            m = self.model
            with torch.no_grad():
                found = m.coder.decode(offsets[b,a], m.anchors[a], m.cells[a])
                q = pair_iou(found, boxes.as_subclass(torch.Tensor)[b,idx[b,a]])
            x = logits[b,a]                                        # [n,C]
            own = F.one_hot(target[b,a], x.shape[1])[:,1:].bool()
            x = x[:,1:]
            p = x.sigmoid()
            no = F.softplus(x)
            if kind=='qfl':
                t = torch.where(own, q[:,None], 0.)
                new = (t-p).abs().pow(beta)*F.binary_cross_entropy_with_logits(x, t, reduction='none')
            else:
                t = torch.where(own, q[:,None], 0.)
                weight = torch.where(own, q[:,None], alpha*p.detach().pow(beta))
                new = weight*F.binary_cross_entropy_with_logits(x, t, reduction='none')
            cls = cls.index_put((b,a), new.sum(1))
            return cls, box, target, idx
    return partial(QualityLoss, box='giou', box_weight=2., **kwargs)

def atss(model, k=9):
    "Assignment by statistics (ATSS, Zhang et al. 2020), in place of `match_anchors`"
    import torch
    from ssd_fastai.boxes import to_xyxy
    from torchvision.ops import box_iou
    def match(anchors, boxes, labels, difficult=None, pos=None, neg=None):
        boxes,labels = boxes.as_subclass(torch.Tensor).float(),labels.as_subclass(torch.Tensor).long()
        (B,M),A = labels.shape,len(anchors)
        if 0 in (B,M): return labels.new_zeros(B,A), labels.new_zeros(B,A)
        real = labels>0
        boxes = torch.where(real[...,None], boxes, 0)
        iou  = torch.stack([box_iou(o, to_xyxy(anchors)) for o in boxes]).nan_to_num(0.)             # [B,M,A]
        ctr  = (boxes[...,:2]+boxes[...,2:])/2
        far  = torch.cdist(ctr.flatten(0,1)[None], anchors[None,:,:2])[0].view(B,M,A)
        near = torch.zeros_like(iou, dtype=torch.bool)
        start = 0
        for (h,w),n in zip(model.grids, model.per_cell):
            size = h*w*n
            at = far[...,start:start+size].topk(min(k*n, size), largest=False).indices + start
            near.scatter_(2, at, True)
            start += size
        cand = torch.where(near, iou, 0.)
        num  = near.sum(2)
        mean = cand.sum(2)/num
        std  = (((cand-mean[...,None])**2*near).sum(2)/(num-1).clamp(min=1)).sqrt()
        inside = ((anchors[:,None,:2].transpose(0,1)[None]>boxes[...,None,:2])&(anchors[:,None,:2].transpose(0,1)[None]<boxes[...,None,2:])).all(-1)
        good = near & inside & (iou>=(mean+std)[...,None]) & real[...,None]
        best = iou.argmax(2)                                                                        # each object gets one
        good |= torch.zeros_like(good).scatter_(2, best[...,None], (real & (iou.amax(2)>0))[...,None])
        score,idx = torch.where(good, iou, -1.).max(1)                                              # [B,A]
        target = torch.where(score>=0, labels.gather(1, idx), 0)
        if difficult is not None:
            hard = difficult.as_subclass(torch.Tensor).bool() & real
            target = torch.where((score>=0) & hard.gather(1, idx), -1, target)
        return target, idx
    return torch.no_grad()(match)

def matched_loss(make, base=None, **kwargs):
    "An `SSDLoss` with another assignment"
    import ssd_fastai.losses as L
    def build(model):
        loss = (base() if base else partial(L.SSDLoss, box='giou', box_weight=2.))(model, **kwargs)
        theirs,plain = make(model),L.match_anchors
        was = loss.by_anchor
        def by_anchor(*args, **kw):
            L.match_anchors = theirs
            try: return was(*args, **kw)
            finally: L.match_anchors = plain
        loss.by_anchor = by_anchor
        return loss
    return partial(build)

def separable(head):
    "Every 3×3 layer of the head before its outputs as a depthwise one and one of 1×1"
    from torch import nn
    from ssd_fastai.head import FPNHead, conv_norm
    def of(layer):
        conv,norm,*act = layer
        if conv.kernel_size!=(3,3) or conv.stride!=(1,1): return layer
        n = conv.in_channels
        deep = nn.Conv2d(n, n, 3, padding=1, groups=n, bias=False)
        wide = nn.Conv2d(n, conv.out_channels, 1, bias=False)
        for o in (deep,wide): nn.init.kaiming_normal_(o.weight, nonlinearity='relu')
        return nn.Sequential(deep, wide, norm, *act)
    head.smooth = nn.ModuleList(map(of, head.smooth))
    for branch in (head.classes, head.boxes):
        for i,o in enumerate(branch):
            if isinstance(o, nn.Sequential): branch[i] = of(o)

def freeze(learn, names):
    "Freeze what the map of stride 8 depends on and has a name that begins like this; its batch norm keeps its statistics"
    early = {id(o) for o in learn.model.body.groups()[0]}
    learn.create_opt()
    for n,p in learn.model.body.named_parameters():
        if id(p) in early and n.startswith(names): p.requires_grad_(False)

def callback(f, event='before_batch'):
    "A callback that calls `f(self)` at an event of the training"
    from fastai.callback.core import Callback
    class When(Callback):
        order = 30
    setattr(When, event, lambda self: f(self) if self.training else None)
    return When()

def progressive(share=0.7, scale=0.7):
    "The first `share` of the training sees images at `scale` of their side"
    import torch, torch.nn.functional as F
    def f(cb):
        if cb.pct_train>=share: return
        x = cb.xb[0]
        h,w = (32*max(1, round(o*scale/32)) for o in x.shape[-2:])
        small = F.interpolate(x.as_subclass(torch.Tensor), (h,w), mode='bilinear', antialias=True)
        cb.learn.xb = (small.contiguous(memory_format=torch.channels_last), *cb.xb[1:])
    return callback(f)

def frozen_norms():
    "The batch norms of the body keep the statistics they came with"
    from torch import nn
    def f(cb):
        for o in cb.model.body.modules():
            if isinstance(o, nn.BatchNorm2d): o.eval()
    return callback(f, 'before_train')

def plain_end(share=0.2):
    "The last `share` of the training sees the images as they are"
    from ssd_fastai.augment import BatchAugment
    def f(cb):
        if cb.pct_train<1-share: return
        to = cb.dls.train.before_batch.fs[0].to
        to.augment = BatchAugment(zoom_out=0, crop=0, flip=0.5, colour=0)
    return callback(f)

def thaw(share=0.5):
    "What `freeze` has frozen trains from this share of the training on"
    def f(cb):
        if cb.pct_train<share: return
        for p in cb.model.body.parameters(): p.requires_grad_(True)
    return callback(f)

def mosaic(share=0.8, chance=0.5):
    "In the first `share` of the training half of the batches are mosaics: four quarters, each of another image; an object is where its centre is"
    import torch
    def f(cb):
        if cb.pct_train>=share or torch.rand(())>=chance: return
        x,(boxes,*rest) = cb.xb[0].as_subclass(torch.Tensor),[o.as_subclass(torch.Tensor) for o in cb.yb]
        h,w = x.shape[-2:]
        cy,cx = (round(n*(0.3+0.4*torch.rand(()).item())) for n in (h,w))
        new,found = x.clone(),[]
        for i,(ys,xs) in enumerate((a,b) for a in ((0,cy),(cy,h)) for b in ((0,cx),(cx,w))):
            src = torch.arange(len(x)).roll(i)
            new[:,:,ys[0]:ys[1],xs[0]:xs[1]] = x[src,:,ys[0]:ys[1],xs[0]:xs[1]]
            part = torch.tensor([xs[0]/w, ys[0]/h, xs[1]/w, ys[1]/h])*2-1
            b = boxes[src]
            ctr = (b[...,:2]+b[...,2:])/2
            keep = (rest[0][src]>0) & ((ctr>part[:2])&(ctr<part[2:])).all(-1)
            b = torch.cat([b[...,:2].maximum(part[:2]), b[...,2:].minimum(part[2:])], -1)
            found.append((b*keep[...,None], *(o[src]*keep for o in rest)))
        boxes,*rest = (torch.cat(o, 1) for o in zip(*found))
        order = (rest[0]>0).int().argsort(dim=1, descending=True, stable=True)[:,:max(1, int((rest[0]>0).sum(1).max()))]
        cb.learn.xb = (new.contiguous(memory_format=torch.channels_last), *cb.xb[1:])
        cb.learn.yb = (boxes.gather(1, order[...,None].expand(-1,-1,4)), *(o.gather(1, order) for o in rest))
    return callback(f)

CALLBACKS = dict(mosaic=mosaic, progressive=progressive, frozen_norms=frozen_norms, plain_end=plain_end, thaw=thaw)

TRIES = dict(
    base     = {},
    width64  = dict(width=64),
    width96  = dict(width=96),
    depth2   = dict(depth=2, width=64),
    sep128   = dict(separable=True),
    sep96    = dict(separable=True, width=96),
    bs8      = dict(bs=8),
    bs8lr3   = dict(bs=8, lr=3e-3),
    bs16     = dict(bs=16, costs_as='bs8'),
    bs16lr4  = dict(bs=16, costs_as='bs8', lr=4e-3),
    lr3      = dict(lr=3e-3),
    lr1      = dict(lr=1e-3),
    wd0      = dict(wd=0.),
    wd5      = dict(wd=0.05),
    qfl      = dict(loss=partial(quality_loss, 'qfl', alpha=None, gamma=2.)),
    vfl      = dict(loss=partial(quality_loss, 'vfl')),
    ciou     = dict(box='ciou'),
    diou     = dict(box='diou'),
    box1     = dict(box_weight=1.),
    box4     = dict(box_weight=4.),
    alpha5   = dict(alpha=0.5),
    gamma2   = dict(gamma=2.),
    progress = dict(cbs=['progressive']),
    frozenbn = dict(cbs=['frozen_norms']),
    plainend = dict(cbs=['plain_end']),
    slice3   = dict(slice=3),
    slice10  = dict(slice=10),
    pct10    = dict(pct_start=0.1),
    early8   = dict(frozen=('net.',)),
    early4   = dict(frozen=('net.conv_stem', 'net.bn1', 'net.blocks.0', 'net.blocks.1')),
    thaw     = dict(frozen=('net.',), cbs=['thaw']),
    e8w64    = dict(frozen=('net.',), width=64),
    e8qfl    = dict(frozen=('net.',), costs_as='early8', loss=partial(quality_loss, 'qfl', alpha=None, gamma=2.)),
    e8end    = dict(frozen=('net.',), costs_as='early8', cbs=['plain_end']),
    e8mild   = dict(frozen=('net.',), costs_as='early8', augment=dict(zoom_out=0.15, crop=0.25)),
    e8norm   = dict(frozen=('net.',), costs_as='early8', cbs=['frozen_norms']),
    e8lr3    = dict(frozen=('net.',), costs_as='early8', lr=3e-3),
    e8lr1    = dict(frozen=('net.',), costs_as='early8', lr=1e-3),
    e8slice  = dict(frozen=('net.',), costs_as='early8', slice=3),
    e8bs8    = dict(frozen=('net.',), bs=8),
    e8coco   = dict(frozen=('net.',), arch='mobilenet_v2', weights=os.environ.get('MOBILENET', 'mobilenet_v2_coco.pth')),
    flips    = dict(augment=dict(zoom_out=0, crop=0, colour=0)),   # without the default augmentation: mirror images alone
    mild     = dict(augment=dict(zoom_out=0.15, crop=0.25)),
    strong   = dict(augment=dict(zoom_out=0.5, side=2., crop=0.7, min_scale=0.4)),
    mosaic   = dict(cbs=['mosaic']),
    wide     = dict(augment=dict(zoom_out=0.3, side=2., crop=0.5, min_scale=0.4)),
    atss     = dict(loss=partial(matched_loss, atss)),
    atss1    = dict(loss=partial(matched_loss, atss), shapes=1),
    atss1q   = dict(loss=partial(matched_loss, atss, partial(quality_loss, 'qfl', alpha=None, gamma=2.)), shapes=1),
    lite1    = dict(arch='tf_efficientnet_lite1'),
    lite2    = dict(arch='tf_efficientnet_lite2'),
    mnv2coco = dict(arch='mobilenet_v2', weights=os.environ.get('MOBILENET', 'mobilenet_v2_coco.pth')),   # tools/tfjs_mobilenet.py
    one      = dict(shapes=1),
    three    = dict(shapes=3),
)

# ------------------------------------------------------------------------------------------------ one training
def fewer_shapes(dls, n):
    "A recipe of `n` shapes per cell, fitted to the training boxes"
    from ssd_fastai.anchors import AnchorRecipe, DEFAULT_RECIPE, fit_anchors
    return fit_anchors(dls, AnchorRecipe((2.5,), DEFAULT_RECIPE.ratios[:n]))

def learner(t, train, valid, vocab, size, seed):
    "The learner of a try"
    from fastai.vision.all import set_seed
    from ssd_fastai.augment import BatchAugment
    from ssd_fastai.data import DetectionDataLoaders
    from ssd_fastai.detector import choose_precision
    from ssd_fastai.learner import ssd_learner
    from ssd_fastai.losses import SSDLoss
    set_seed(seed, reproducible=True)
    augment = BatchAugment(**t['augment']) if 'augment' in t else 'default'
    dls = DetectionDataLoaders.from_records(train, valid, size=size, bs=t.get('bs', 4), augment=augment, vocab=vocab, num_workers=0, verify=False,
                                            cache='ram', device='cpu')
    loss = t['loss']() if 'loss' in t else partial(SSDLoss, box=t.get('box', 'giou'), box_weight=t.get('box_weight', 2.),
                                                     alpha=t.get('alpha', 0.25), gamma=t.get('gamma', 1.))
    more = {k:t[k] for k in ('width','depth') if k in t}
    if 'shapes' in t: more['recipe'] = fewer_shapes(dls, t['shapes'])
    more |= {k:t[k] for k in ('weights',) if k in t}
    learn = ssd_learner(dls, t.get('arch', ARCH), loss_func=loss, **more)
    if t.get('separable'):
        import torch
        separable(learn.model.head)
        learn.model.to(memory_format=torch.channels_last)
    learn.unfreeze()
    if 'frozen' in t: freeze(learn, t['frozen'])
    how = choose_precision('auto', dls.device, training=True)
    return learn if how=='float32' else getattr(learn, f'to_{how}')()

def fit(learn, t, *cbs):
    "One cycle over the training set as it is"
    from ssd_fastai.callbacks import AverageWeights
    lr  = t.get('lr', 2e-3)
    lr  = slice(lr/t['slice'], lr) if 'slice' in t else lr
    cbs = [AverageWeights(), NoValidation(), *(CALLBACKS[o]() for o in t.get('cbs', ())), *cbs]
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, lr, pct_start=t.get('pct_start', 0.25), wd=t.get('wd'), cbs=cbs)

def step_seconds(learn, t):
    "Median time per image of a step, data and augmentation included, in a short fit"
    times = []
    fit(learn, t, callback(lambda cb: times.append(time.perf_counter()), 'after_batch'))
    return statistics.median(b-a for a,b in zip(times, times[1:]))/learn.dls.train.bs

def some(records, n):
    "`n` records, the same for every seed; all of them for None"
    import random
    return records if n is None else type(records)(random.Random(0).sample(list(records), n))

def maker(t, data, seed=42, few=None):
    "A function that makes the learner of a try for some training records; and the splits, `few` images of the training split if given"
    splits = splits_of(data)
    train,valid = some(splits['train'], few),splits['val']
    vocab = sorted({o for r in train for o in r.names})
    return lambda records: learner(t, records, valid[:16], vocab, SETS[data][0], seed), train, valid

def cost(name, data, turns=3):
    "How much longer a step takes than the base's: both in turns"
    both,ratios = ({}, TRIES[name]),[]
    learns = [make(order(train, 48, 0)) for t in both for make,train,_ in [maker(t, data)]]
    for _ in range(turns+1): ratios.append([step_seconds(l, t) for l,t in zip(learns, both)])
    base,own = (statistics.median(o[i] for o in ratios[1:]) for i in (0,1))
    if 'progressive' in TRIES[name].get('cbs', ()): own = 0.7*own+0.3*base     # the short fits: 0.7 of their steps are small
    return dict(name=name, data=data, seconds=round(own, 5), cost=round(own/base, 3), machine=machine())

FREE = {'lr', 'wd', 'slice', 'pct_start', 'augment', 'box', 'box_weight', 'alpha', 'gamma'}   # these do not change what a step costs

def cost_of(name, data, costs):
    "What was measured on this set, or else on others"
    if 'thaw' in TRIES[name].get('cbs', ()): return (1+cost_of('early8', data, costs))/2
    name = TRIES[name].get('costs_as', name)
    if set(TRIES[name])<=FREE or TRIES[name].get('cbs') in (['plain_end'], ['mosaic']): return 1.
    own = [o for o in costs if o['name']==name]
    if not own: raise SystemExit(f'{name}: measure --costs first')
    return statistics.mean(o['cost'] for o in [o for o in own if o['data']==data] or own)

def measure(name, data, seed, minutes, few, costs, **_):
    "One row"
    t = TRIES[name]
    make,train,valid = maker(t, data, seed, few)
    n = round(SETS[data][1]*minutes/cost_of(name, data, costs))
    learn = make(order(train, n, seed))
    start = time.perf_counter()
    fit(learn, t)
    took = time.perf_counter()-start
    ev = learn.detector().evaluate(valid, score=0.01, iou=0.5, max_per_image=200, progress=False)
    return dict(name=name, data=data, size=list(SETS[data][0]), seed=seed, minutes=minutes, few=few, images=n, seconds=round(took), voc12=ev.voc12, coco=ev.coco, machine=machine())

def table(rows, costs):
    "Each change beside the base: the mean difference of COCO AP and AP50 over the sets and seeds that both have"
    like = lambda o: (o['data'],tuple(o['size']),o['seed'],o['minutes'],o.get('few'))
    base = {like(o):o for o in rows if o['name']=='base'}
    for minutes,few in sorted({(o['minutes'],o.get('few')) for o in rows}, key=str):
        here = [o for o in rows if (o['minutes'],o.get('few'))==(minutes,few)]
        print(f'{minutes:g} minutes, {few or "all"} training images: COCO AP and AP50 beside the base (seeds)')
        print(f'{"change":10} {"cost":>5}  ' + '  '.join(f'{d:>18}' for d in SETS) + '   mean')
        for name in dict.fromkeys(o['name'] for o in here):
            cells,diffs = [],[]
            for d in SETS:
                pairs = [(o, base[like(o)]) for o in here if (o['name'],o['data'])==(name,d) and like(o) in base]
                of = lambda k: statistics.mean(a[k]-b[k]*(name!='base') for a,b in pairs)
                cells.append(f"{of('coco'):+.3f} {of('voc12'):+.3f} ({len(pairs)})" if pairs else '–')
                if pairs: diffs.append((of('coco'), of('voc12')))
            if not diffs: continue
            print(f"{name:10} {statistics.mean(cost_of(name, d, costs) for d in SETS):5.2f}  " + '  '.join(f'{o:>18}' for o in cells)
                  + '   {:+.4f} {:+.4f}'.format(*(statistics.mean(o) for o in zip(*diffs))))

def read():
    "What has been measured"
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else dict(costs=[], rows=[])

def add(kind, row):
    "Write one more; the file is read again, since two of these may run"
    found = read()
    found[kind].append(row)
    write(RESULTS, json.dumps(found, indent=1)+'\n')
    print({k:v for k,v in row.items() if k!='machine'}, flush=True)

def known(kind, here): return any(all(o.get(k)==v for k,v in here.items()) for o in read()[kind])

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('tries', nargs='*', help=', '.join(TRIES))
    p.add_argument('--data', default=','.join(SETS))
    p.add_argument('--seeds', default='42')
    p.add_argument('--minutes', type=float, default=2)
    p.add_argument('--few', type=int, help='train on so many images: the minutes then are many passes, as in a long training')
    p.add_argument('--costs', action='store_true', help='measure what steps cost, nothing else')
    p.add_argument('--table', action='store_true')
    a = p.parse_args()
    warnings.filterwarnings('ignore')
    sets = a.data.split(',')
    if a.costs:
        for data in sets:
            for name in a.tries:
                if not known('costs', dict(name=name, data=data)): add('costs', cost(name, data))
    else:
        for seed in map(int, a.seeds.split(',')):
            for name in a.tries:
                for data in sets:
                    here = dict(name=name, data=data, size=list(SETS[data][0]), seed=seed, minutes=a.minutes, few=a.few)
                    if not known('rows', here): add('rows', measure(**here, costs=read()['costs']))
    if a.table: table(**read())
