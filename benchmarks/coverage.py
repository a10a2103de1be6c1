"""Do 95 % intervals hold the truth in 95 % of all cases? Drawn images, of which the true AP is known.

    python benchmarks/coverage.py [CASE …] [--worlds 500] [--images 120] [--processes 2]

Per case 12,000 images are drawn, with the detections of two detectors on each; AP on all of them is the truth. A *world* is 120 of these
images, evaluated as anybody evaluates a test split: counted is how often `interval` and the interval of `compare` hold the truth. The images differ in
how full and how hard they are, since that is what bootstrap over images is for, and classes in how frequent they are. The result goes to
`benchmarks/results/coverage.json`.
"""
import argparse, json, multiprocessing, sys
from pathlib import Path
import numpy as np
from ssd_fastai.analysis import compare
from ssd_fastai.metrics import evaluate_detections
from ssd_fastai.records import Detections, GroundTruth

RESULTS = Path(__file__).resolve().parent/'results'/'coverage.json'
POOL    = 12_000
CELL    = 40    # pixels of a cell; 10×10 cells, at most one box in each
CASES   = dict( # objects per image and class, how easy they are, how much the second detector finds more, wrong detections per image
    cells = dict(rates=(6,1,0.5), ease=0,    gain=0.1, wrong=3),   # as in BCCD: one class frequent, two rare; AP50 0.6
    hard  = dict(rates=(3,1,0.4), ease=-0.7, gain=0.2, wrong=6),   # AP50 0.3
    easy  = dict(rates=(2,2,1),   ease=1.5,  gain=0.1, wrong=1))   # AP50 0.9
FORMS   = ('voc12', 'coco')

def squash(x): return 1/(1+np.exp(-x))

def found(rng, box, label, t, ease, wrong, K, vocab):
    "Detections of objects with latent ease `t`: found or not, more or less exact, some twice, and `wrong` ones elsewhere"
    at   = np.flatnonzero(t+rng.normal(0, 0.5, len(t))>-1.2)
    near = box[at]+rng.normal(0, 1, (len(at),4))*(1.2*np.exp(-0.25*t[at]))[:,None]
    s    = squash(1.2*t[at]+rng.normal(0.5, 0.7, len(at)))
    twice = np.flatnonzero(rng.random(len(at))<0.15)
    boxes  = np.concatenate([near, near[twice]+rng.normal(0, 2, (len(twice),4)), wrong])
    labels = np.concatenate([label[at], label[at][twice], rng.integers(1, K+1, len(wrong))])
    scores = np.concatenate([s, s[twice]*rng.random(len(twice)), squash(rng.normal(-1.5-0.3*ease, 1, len(wrong)))])
    return Detections(boxes, labels, scores, vocab, (10*CELL,10*CELL))

def drawn_image(rng, rates, ease, gain, wrong):
    "The truth of an image and what two detectors find in it"
    K,vocab = len(rates),['#na#', *(f'c{i}' for i in range(len(rates)))]
    full,q  = rng.gamma(2, 0.5),rng.normal(ease, 0.7)  # how full and how easy this image is
    label   = rng.permutation(np.repeat(np.arange(K)+1, rng.poisson(np.array(rates)*full)))[:50]
    m,cells = len(label),rng.permutation(100)
    xy  = np.stack([cells%10, cells//10], 1)*CELL+5.
    box = np.concatenate([xy, xy+rng.uniform(14, 28, (100,2))], 1)
    t   = rng.normal(0, 1, m)+q-0.5*(label-1)
    junk = [box[m:][:rng.poisson(wrong)] for _ in range(2)]
    dets = [found(rng, box[:m], label, t+rng.normal(g, 0.5, m), q, j, K, vocab) for g,j in zip((0,gain), junk)]
    return GroundTruth(box[:m], [vocab[i] for i in label], size=(10*CELL,10*CELL)), *dets

def drawn_pool(case):
    rng = np.random.default_rng(12345)
    return list(zip(*(drawn_image(rng, **CASES[case]) for _ in range(POOL))))

def both_evaluated(pool, pick):
    truths,a,b = ([o[i] for i in pick] for o in pool)
    return evaluate_detections(a, truths), evaluate_detections(b, truths)

def side(interval, truth): return -1 if interval[1]<truth else 1 if interval[0]>truth else 0 # 0: holds it

def one_world(seed):
    "On which side of each truth the intervals of a world lie"
    a,b = both_evaluated(WORLD['pool'], np.random.default_rng([7,seed]).choice(POOL, WORLD['images'], replace=False))
    out = {f:side(a.interval(f), WORLD['truth'][f]) for f in FORMS}
    out['compare'] = side(compare(a, b).interval, WORLD['truth']['compare'])
    each = a.intervals['per_class']
    for k,truth in WORLD['truth']['classes'].items():
        if each[k]['voc12']: out[f'class {k}'] = side(each[k]['voc12'], truth)
    return out

WORLD = {} # what the processes share: the pool, its truth, images per world

def measured(case, images, worlds, processes):
    if WORLD.get('case')!=case:
        pool = drawn_pool(case)
        a,b  = both_evaluated(pool, range(POOL))
        truth = dict(voc12=a.map, coco=a.coco, compare=b.map-a.map, classes={k:o['voc12'] for k,o in a.rows.items()})
        WORLD.update(case=case, pool=pool, truth=truth)
    WORLD['images'] = images
    with multiprocessing.get_context('fork').Pool(processes) as p: sides = p.map(one_world, range(worlds), chunksize=5)
    rows = {}
    for k in sides[0]:
        x = [o[k] for o in sides if k in o]
        rows[k] = dict(worlds=len(x), holds=round(x.count(0)/len(x), 4), too_low=round(x.count(-1)/len(x), 4), too_high=round(x.count(1)/len(x), 4))
    return dict(case=case, images=images, truth=WORLD['truth'], coverage=rows)

def main(names, worlds, images, processes):
    res = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for case in names or CASES:
        for n in images:
            new = measured(case, n, worlds, processes)
            res = [o for o in res if (o['case'],o['images'])!=(case,n)]+[new]
            print(case, n, {k:o['holds'] for k,o in new['coverage'].items()}, flush=True)
            RESULTS.write_text(json.dumps(res, indent=1)+'\n')

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('cases', nargs='*', metavar='CASE', choices=[*CASES, []], help='which cases; all if left out')
    p.add_argument('--worlds', type=int, default=500, help='worlds per case and number of images')
    p.add_argument('--images', type=int, nargs='+', default=[120], help='images of a world')
    p.add_argument('--processes', type=int, default=2, help='processes')
    a = p.parse_args()
    sys.exit(main(a.cases, a.worlds, a.images, a.processes))
