"""The ladder: the post mistake for mistake, then one change per rung up to the default of `ssd_learner`. `nbs/82_post.ipynb` explains it.

    python benchmarks/ladder.py                 # about two hours on an otherwise idle machine; rows into
                                                # benchmarks/results/ladder.json, picture into images/ladder.png; can be resumed
    python benchmarks/ladder.py --list          # the rungs, and which are done
    python benchmarks/ladder.py --only average  # runs whose name or data contains this word; --again repeats them
    python benchmarks/ladder.py --budget 3 --n 40 --out runs/ladder/try.json   # quick check, no figures

All figures are of the validation splits, since choices are made on them; the test splits are not used. Every run gets the same seconds of
training: a few timed steps on a copy tell how many epochs that is. Where the training then takes over 15 % more or less, it is repeated once
with the number of epochs that its own pace allows. A run leaves its row, not its weights.
BCCD is looked for as bccd/BCCD in the folder named by SSD_FASTAI_DATA (default ../shared/data), and skipped with a line where it is absent.
"""
import argparse, inspect, json, time, warnings
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import mean

import fastai, torch, torchvision
from fastai.vision.all import Adam, Callback, CancelFitException, CancelValidException, defaults, set_seed
from torchvision.transforms.v2 import RandomHorizontalFlip

from bccd import DATA, ROOT, machine, write
from post import PostLoss, PostFPNHead, PostOutConv, PostRecipe, post_detections
from ssd_fastai import __version__
from ssd_fastai.anchors import DEFAULT_RECIPE
from ssd_fastai.callbacks import AverageWeights
from ssd_fastai.classic import CLASSIC_RECIPE, CLASSIC_THRESHOLDS, SSDHead
from ssd_fastai.data import DetectionDataLoaders
from ssd_fastai.detector import image_tensor
from ssd_fastai.images import load_image
from ssd_fastai.metrics import evaluate_detections
from ssd_fastai.model import HEADS
from ssd_fastai.nms import EVALUATION_THRESHOLDS
from ssd_fastai.readers import read_voc
from ssd_fastai.records import Detections
from ssd_fastai.resize import Fit
from ssd_fastai.synth import synth_voc
from ssd_fastai.detector import choose_precision
from ssd_fastai.runs import learner_for, plan_stages, train_run

WORK,RESULTS = ROOT/'runs'/'ladder',ROOT/'benchmarks'/'results'/'ladder.json'
LR,WD = HEADS['fpn'].lr,inspect.signature(train_run).parameters['wd'].default   # what `ssd-train` does
SEEDS = 1,2
SETS  = dict(shapes=dict(size=128, bs=8, budget=60), bccd=dict(size=None, bs=None, budget=120))   # None: what `ssd-train` takes

# ---- the rungs: each has all changes of the rungs before it and one more. What makes training faster, what lets it see small objects, and class
# scores that start low come first: without them nothing is learned in a minute and no cure shows. The last rung is beyond the default

CHANGES = [
    ('cycle',      '',    f'one cycle with a top rate of {LR:g}, not a constant {defaults.lr:g}'),
    ('fused',      '',    'PyTorch\'s fused AdamW, not fastai\'s Adam'),
    ('fast',       '',    'channels-last'),
    ('levels',     'S10', 'the default head: feature maps of strides 8 to 128 with an FPN top-down pathway, not strides 32 and more'),
    ('prior',      'S16', 'class scores start from 0.01, not from 0.5'),
    ('iou',        'S13', 'IoU is intersection over union, not computed from the gap between boxes'),
    ('background', 'S6',  'anchors whose best IoU is below 0.4 are background'),
    ('batch',      'S7',  'the class loss of every image of a batch, not of the last one only'),
    ('aligned',    'S1',  'each output row reads the cell of its anchor'),
    ('axes',       'S2',  'anchors with y slow and x fast'),
    ('label',      'S4',  'one score per box, not one for all boxes of a class'),
    ('scores',     'S3',  '… and the score of that box (one training serves `axes`, `label` and `scores`)'),
    ('normalise',  'S9',  'both losses divided by the number of positive anchors'),
    ('flow',       'S17', 'gradient through the focal weight'),
    ('encoding',   'S11', 'offsets with variances, not bounded by tanh'),
    ('anchors',    '',    'six anchors per cell, two and three cells large, not nine of about one cell'),
    ('fitted',     '',    'their zooms and ratios fitted to the training boxes'),
    ('band',       '',    'positive from an IoU of 0.5; anchors between 0.4 and 0.5 are ignored'),
    ('flip',       '',    'horizontal flips'),
    ('average',    '',    'a moving average of the weights'),
    ('giou',       '',    'GIoU box loss with weight 2, not L1 of the corners'),
    ('augment',    '',    'the default augmentation, not flips alone'),
    ('votes',      '',    'a kept box is the mean of those that vote for it: this is the default'),
    ('frozen',     '',    'beyond the default: the body frozen for the first sixth of the epochs'),
]
NAMES = [o for o,*_ in CHANGES]
TODAY = frozenset(NAMES)-{'frozen'}   # the default
AFTER = dict(label='order', scores='own', votes='votes')   # changes after the network, on the weights of the rung before: the way (of `WAYS`) from there on

@dataclass(frozen=True)
class Run:
    "One training and the rows that come of it"
    data:str             # 'shapes' or 'bccd'
    on:frozenset         # changes against the post
    rows:tuple           # (name, in words, its way to detections, of `WAYS`) of each
    arch:str='resnet18'
    start:str='random'   # or from ImageNet: 'all' at one rate, 'frozen' then all, 'unfreezing' by stages with discriminative rates

def rungs():
    "The rungs on drawn shapes, from ImageNet weights as in the post; the last but one is the default. Rungs that differ after the network only share a training"
    run  = lambda on,row: Run('shapes', frozenset(on), (row,), 'tf_efficientnet_lite0', 'frozen' if 'frozen' in on else 'all')
    runs = [run((), ('post', 'the post as it is', 'last'))]
    way  = 'last'
    for i,(name,_,says) in enumerate(CHANGES):
        way = AFTER.get(name, way)
        row = name, says, way
        if name in AFTER: runs[-1] = replace(runs[-1], on=runs[-1].on|{name}, rows=(*runs[-1].rows, row))
        else: runs.append(run(NAMES[:i+1], row))
    return runs

def cells():
    "The runs on BCCD: three from random weights, three from ImageNet's"
    cured = frozenset(o for o,code,_ in CHANGES if code and o not in ('levels','encoding'))
    lite  = lambda name,says,start: Run('bccd', TODAY, ((name,says,'votes'),), 'tf_efficientnet_lite0', start)
    return [Run('bccd', frozenset(), (('post','the post as it is','last'),)), Run('bccd', cured, (('cured','the post, its mistakes cured','own'),)),
            Run('bccd', TODAY, (('default','today\'s default','votes'),)), lite('lite0-all','ImageNet weights, all at once with one rate, as ssd-train does','all'),
            lite('lite0-frozen','ImageNet weights, the body frozen for the first sixth of the epochs','frozen'),
            lite('lite0-unfreezing','ImageNet weights, fit_unfreezing with discriminative rates','unfreezing')]

def without():
    "The default on BCCD without one change, for those that a minute of drawn shapes is too short or too clean to judge; without `flip`, no augmentation at all"
    doubtful = 'band','flip','average','giou','augment'
    less = lambda o: TODAY-{o, 'augment'} if o=='flip' else TODAY-{o}
    return [Run('bccd', less(o), ((f'without {o}', f"today's default less `{o}`{' and `augment`' if o=='flip' else ''}", 'votes'),)) for o in doubtful]

def all_runs(): return [*rungs(), *cells(), *without()]

# ---- data

@lru_cache
def splits(data, n=None):
    "Training and validation records; of the drawn ones the first 416 train, 26 steps of 16"
    where = DATA
    if data=='shapes': where = synth_voc(WORK/f'shapes-{n or "all"}', n=1000 if n is None else 2*n, seed=42)
    n = n or (416 if data=='shapes' else None)
    train,valid = (read_voc(where, o, verbose=False) for o in ('train','val'))
    return train[:n], valid if n is None or n>=400 else valid[:max(4, n//3)]

# ---- training

class NoValid(Callback):
    "Training time goes to training: validate once, at the end"
    order = 99   # after the averaged weights were put in, so that they are taken out again
    def before_validate(self): raise CancelValidException()

class Clock(Callback):
    "Stop after `n` steps; seconds a step, the first three not counted"
    def __init__(self, n=12): self.n,self.at = n,[]
    def after_batch(self):
        self.at.append(time.perf_counter())
        if len(self.at)>=self.n: raise CancelFitException()
    @property
    def step(self): i = min(2, len(self.at)-2); return (self.at[-1]-self.at[i])/(len(self.at)-1-i)

def make_dls(run, parts):
    c,on = SETS[run.data],run.on
    augment = 'default' if 'augment' in on else [RandomHorizontalFlip()] if 'flip' in on else None
    return DetectionDataLoaders.from_records(*parts, size=c['size'], bs=c['bs'], augment=augment, num_workers=0, verify=False, path=WORK)

def package_args(on):
    "Arguments of `ssd_learner` that take it back from the default"
    kw = {}
    if 'levels'  not in on: kw['head'] = 'classic'
    if 'encoding' not in on: kw['encoding'] = 'tanh'
    if 'fitted'  not in on: kw['recipe'] = DEFAULT_RECIPE if 'anchors' in on else CLASSIC_RECIPE
    if 'fused'   not in on: kw['opt_func'] = Adam
    return kw

def put_mistakes(learn, on):
    "What the package has no argument for: the post's mistakes"
    m = learn.model
    coarse = isinstance(m.head, SSDHead)
    if 'prior'   not in on: (m.head.out.oconv1 if coarse else m.head.classes[-1]).reset_parameters()
    if 'aligned' not in on: (m.head.out if coarse else m.head).__class__ = PostOutConv if coarse else PostFPNHead
    if 'axes'    not in on:
        m.recipe,grids,m.grids = PostRecipe(m.recipe.zooms, m.recipe.ratios),m.grids,[]
        m.set_grids(grids)
    if 'giou'    not in on: learn.loss_func = PostLoss(m, **{o: o in on for o in ('iou','background','batch','normalise','flow','band')})
    elif 'band' not in on: learn.loss_func.pos = 0.4

def make_learner(run, parts, seed):
    "A learner of this rung, and its precision"
    set_seed(seed, reproducible=True)
    learn = learner_for(make_dls(run, parts), run.arch, 'none' if run.start=='random' else 'imagenet', wd=WD, path=WORK, metrics=[], **package_args(run.on))
    put_mistakes(learn, run.on)
    if 'fast' not in run.on:
        learn.model.to(memory_format=torch.contiguous_format)   # `ssd_learner` gives channels-last
        return learn,'float32'
    how = choose_precision('auto', learn.dls.device, training=True)
    return learn if how=='float32' else getattr(learn, f'to_{how}')(), how

def plan(run, epochs):
    "(groups frozen, epochs, rate) of each stage"
    if run.start=='unfreezing':
        a,b = round(epochs*0.2),round(epochs*0.3)
        return [(2,a,LR), (1,b,LR), (0,epochs-a-b,LR)]
    return plan_stages(epochs, LR, round(epochs/6) or int(epochs>1) if run.start=='frozen' else 0)

def fit(run, learn, epochs, cbs=()):
    cbs = [NoValid(), *cbs, AverageWeights() if 'average' in run.on else AverageWeights(0)]
    if run.start=='unfreezing': return learn.fit_unfreezing([e for _,e,_ in plan(run, epochs)], lr=LR, cbs=cbs)
    for frozen,e,lr in plan(run, epochs):
        learn.freeze_to(frozen)
        if 'cycle' not in run.on: learn.fit(e, defaults.lr, cbs=cbs)
        elif e: learn.fit_one_cycle(e, lr, cbs=cbs)

def choose_epochs(run, parts, seed, budget):
    "As many epochs as come nearest to `budget` seconds: steps of each stage are timed on a learner that is thrown away"
    learn,pace = make_learner(run, parts, seed)[0],{}
    for frozen in {f for f,_,_ in plan(run, 20)}:
        learn.freeze_to(frozen)
        clock = Clock(min(12, max(3, len(learn.dls.train))))
        with learn.no_bar(), learn.no_logging(): learn.fit(9, LR/10, cbs=[clock, NoValid(), AverageWeights() if 'average' in run.on else AverageWeights(0)])
        pace[frozen] = clock.step*len(learn.dls.train)
    cost = lambda n: sum(pace[f]*e for f,e,_ in plan(run, n))
    return min(range(1,200), key=lambda n: abs(cost(n)-budget))

# ---- evaluation

# the post suppresses class by class and limits the detections of each class; the evaluation's 200 per image are its 200 per class
_PROTOCOL = EVALUATION_THRESHOLDS.changed(max_per_class=200)
WAYS = dict(last=_PROTOCOL, order=_PROTOCOL, own=EVALUATION_THRESHOLDS, votes=EVALUATION_THRESHOLDS,
            drawn=CLASSIC_THRESHOLDS) # `drawn`: as the post draws

def hand_out(way, det, boxes, scores, fit, file):
    "One image's `Detections`: scores as the post has them ('last', 'drawn'), with S4 cured ('order'), right ('own'), right and with boxes that vote ('votes')"
    if way in ('own','votes'): return det.detections(boxes[None], scores[None], [fit], [file], thresholds=WAYS[way])[0]
    b,l,s = post_detections(boxes, scores, label=way=='order', thresholds=WAYS[way])
    return Detections(fit.to_px(b), l, s, det.vocab, fit.orig, file=file)

def with_vote(det, vote):
    "This detector with another `vote`, on the same weights"
    res = copy(det)
    res.model = copy(det.model)
    res.model.vote = vote
    return res

def measure(learn, records, bs=16):
    "The evaluation of each way from the network's output to detections"
    det,found = learn.detector(),{o:[] for o in WAYS}
    voting,plain = with_vote(det, HEADS['fpn'].vote),with_vote(det, None)
    for i in range(0, len(records), bs):
        some = records[i:i+bs]
        fits = [Fit(r.size, det.size, det.method) for r in some]
        outs = det.forward(torch.stack([image_tensor(f.image(load_image(r.file))) for f,r in zip(fits, some)]))
        for r,f,b,s in zip(some, fits, *outs):
            for way,o in found.items(): o.append(hand_out(way, voting if way=='votes' else plain, b, s, f, r.file))
    return {way: evaluate_detections(o, records, det.vocab, WAYS[way], size=list(det.size), resize=det.method) for way,o in found.items()}

# ---- rows

def fairer(row):
    "The whole epochs nearest to the budget at the pace that the row's training really had; None where these seconds are near enough, or a second try"
    n = max(1, round(row['epochs']*row['budget']/row['seconds']))
    return n if abs(row['seconds']/row['budget']-1)>0.15 and n!=row['epochs'] and not row.get('replanned') else None

def climb(run, seed, budget, n=None, epochs=None):
    "Train once, for `epochs` or as many as the budget seems to allow, and give the row of each of the run's rungs"
    parts  = splits(run.data, n)
    replanned,epochs = epochs is not None,epochs or choose_epochs(run, parts, seed, budget)
    learn,precision = make_learner(run, parts, seed)
    start = time.perf_counter()
    with learn.no_bar(), learn.no_logging(): fit(run, learn, epochs)
    seconds = time.perf_counter()-start
    evs = measure(learn, parts[1])
    ways = {k:dict(voc12=round(o.voc12,4), coco=round(o.coco,4)) for k,o in evs.items()}
    base = dict(seconds=round(seconds,1), budget=budget, epochs=epochs, replanned=replanned, images=len(parts[0]), split='val', counts=evs['own'].counts, n=n,
                size=list(learn.dls.size), bs=learn.dls.bs, arch=run.arch, weights=learn.model.config['weights_from'], precision=precision,
                machine=machine(), versions=dict(ssd_fastai=__version__, fastai=fastai.__version__, torch=torch.__version__, torchvision=torchvision.__version__))
    interval = lambda way: {f:[round(x,4) for x in evs[way].interval(f)] for f in ('voc12','coco')}
    return [dict(data=run.data, rung=name, says=says, seed=seed, **ways[way], interval=interval(way), way=way, ways=ways, **base) for name,says,way in run.rows]

def read_rows(out): return json.loads(out.read_text()) if out.exists() else []

def keep(out, rows):
    "Write all rows, old and new, by rename: in the order and the words of the ladder"
    words = {(r.data,name):says for r in all_runs() for name,says,_ in r.rows}
    order = {o:i for i,o in enumerate(words)}
    of    = lambda o: (o['data'],o['rung'])
    new   = {(*of(o),o['seed']): {**o, 'says':words.get(of(o)) or o['says']} for o in [*read_rows(out), *rows]}
    rows  = sorted(new.values(), key=lambda o: (order.get(of(o), 999), o['seed']))
    write(out, json.dumps(rows, indent=1)+'\n')

# ---- the picture

def _bars(ax, rows, title):
    "A bar per rung: mean over the seeds; its line: 95 % interval over images; a dot per seed; a ring: the same weights with scores handed out right"
    names = list(dict.fromkeys(o['rung'] for o in rows))
    for y,name in enumerate(names):
        mine = [o for o in rows if o['rung']==name]
        ap   = [o['voc12'] for o in mine]
        ends = [mean(o['interval']['voc12'][i] for o in mine) for i in (0,1)]
        ax.barh(y, sum(ap)/len(ap), color='C0', alpha=0.45, height=0.7)
        ax.plot(ends, [y]*len(ends), c='C0', lw=1)
        ax.plot(ap, [y]*len(ap), 'o', c='C0', ms=3.5)
        if mine[0]['way'] in ('last','order'): ax.plot([o['ways']['own']['voc12'] for o in mine], [y]*len(mine), 'o', mfc='none', c='0.4', ms=4)
        ax.text(1.02, y, f'{sum(ap)/len(ap):.3f}', va='center', fontsize=7)
    ax.set(yticks=range(len(names)), xlim=(0,1), ylim=(len(names)-.4,-.6), xlabel='AP50 (VOC12), validation split')
    codes = {o:s for o,s,_ in CHANGES}
    ax.set_yticklabels([f'{o} ({codes[o]})' if codes.get(o) else o for o in names])
    ax.tick_params(labelsize=7); ax.xaxis.label.set_size(7); ax.set_title(title, fontsize=8, loc='left'); ax.spines[['top','right']].set_visible(False)

def draw(out, file):
    "One picture of all rows"
    import matplotlib; matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    rows  = read_rows(out)
    parts = [o for o in ([r for r in rows if r['data']==d] for d in SETS) if o]
    if not parts: return
    fig,axs = plt.subplots(1, len(parts), figsize=(4.3*len(parts),4.6), squeeze=False, layout='constrained')
    for ax,p in zip(axs[0], parts):
        _bars(ax, p, f"{'drawn shapes' if p[0]['data']=='shapes' else 'BCCD'}: {p[0]['budget']:g} s of training per run, {len({o['seed'] for o in p})} seeds")
    file.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(file, dpi=130)
    plt.close(fig)

# ---- the command

def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', default='', help='runs whose name or data has this word')
    p.add_argument('--again', action='store_true', help='measure anew what is there')
    p.add_argument('--list', action='store_true', help='say what the rungs are and which are done')
    p.add_argument('--draw', action='store_true', help='draw the picture alone')
    p.add_argument('--budget', type=float, help='seconds of training a run; default 60 on shapes, 120 on BCCD')
    p.add_argument('--n', type=int, help='train on so many images at most')
    p.add_argument('--out', type=Path, default=RESULTS, help='file of the rows')
    return p.parse_args()

def todo(a):
    "(run, seed, its rows so far or Nones, whether it is done) in the order of work: the whole ladder with the first seed, then with the second"
    old  = {} if a.again else {(o['data'],o['rung'],o['seed']):o for o in read_rows(a.out)}
    runs = [r for r in all_runs() if a.only in r.data or any(a.only in o[0] for o in r.rows)]
    jobs = [(r, s, [old.get((r.data,o[0],s)) for o in r.rows]) for s in SEEDS for r in runs]
    return [(r, s, mine, all(o and not fairer(o) for o in mine)) for r,s,mine in jobs]

def refuse_mixture(a, run, budget):
    old = {(o['budget'],o['n']) for o in read_rows(a.out) if o['data']==run.data}
    if old-{(budget,a.n)}: raise SystemExit(f'{a.out} holds runs of another --budget or --n: give another --out')

def main():
    a = arguments()
    jobs = todo(a)
    if a.list:
        for r,s,_,d in jobs: print('done ' if d else '     ', r.data, s, '; '.join(f'{n}: {says}' for n,says,_ in r.rows))
    else:
        for r,s,old,d in jobs:
            if a.draw or d: continue
            if r.data=='bccd' and not DATA.is_dir(): print('BCCD is not in SSD_FASTAI_DATA: left out'); continue
            budget = a.budget or SETS[r.data]['budget']
            refuse_mixture(a, r, budget)
            epochs = fairer(old[0]) if old[0] else None
            rows   = climb(r, s, budget, a.n, epochs)
            if epochs is None and (epochs:=fairer(rows[0])): rows = climb(r, s, budget, a.n, epochs)
            keep(a.out, rows)
            for o in rows: print(*(o[k] for k in ('data','rung','seed','voc12','coco','seconds','epochs')), flush=True)
        draw(a.out, ROOT/'images'/'ladder.png' if a.out==RESULTS else a.out.with_suffix('.png'))

if __name__=='__main__':
    warnings.simplefilter('ignore', FutureWarning)
    main()
