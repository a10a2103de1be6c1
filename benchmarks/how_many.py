"""How many images does one need? AP on the test split against the number of training images, on BCCD and NEU-DET.

    python benchmarks/how_many.py                # what is not measured yet, into benchmarks/results/how_many.json, and images/how_many.png
    python benchmarks/how_many.py bccd --seeds 42

Each point is a training of the same number of steps (not epochs, not seconds), so that more images are not trained for longer. Everything else but the
batch, four images, is the default of `ssd-train`. The images of a smaller training set are among those of a larger one. The test split is used once per model, with its final weights.
"""
import argparse, json, tempfile
from pathlib import Path

from bccd import ROOT, SETS_AT, machine, write

RESULTS = ROOT/'benchmarks'/'results'/'how_many.json'
SETS    = dict(bccd=('bccd/BCCD', (25,50,100,205)), neu=('neu', (25,50,100,200,400,800)))
ARCH, BS, STEPS = 'tf_efficientnet_lite0', 4, 400

def subset(records, n, seed):
    "`n` records; those of a smaller `n` are among those of a larger one"
    import random
    some = random.Random(seed).sample(list(records), len(records))[:n]
    return type(records)(some)

def measure(data, n, seed):
    "Train on `n` images of a set for `STEPS` steps; AP on val and test"
    from ssd_fastai.data import DetectionDataLoaders
    from ssd_fastai.files import load_detector
    from ssd_fastai.readers import read_split
    from ssd_fastai.runs import train_run
    folder = SETS[data][0]
    train,valid,test = (read_split(SETS_AT/folder, o, verbose=False) for o in ('train','val','test'))
    vocab = sorted({o for r in train for o in r.names})
    some  = subset(train, n, seed)
    make  = lambda: DetectionDataLoaders.from_records(some, valid[:16], bs=min(BS, n), vocab=vocab, verify=False, num_workers=0)
    with tempfile.TemporaryDirectory() as out:
        train_run(make, ARCH, out, epochs=max(1, round(STEPS/(n//min(BS, n)))), seed=seed, weights='imagenet')
        det = load_detector(Path(out)/'model.safetensors')
        ev  = det.evaluate(test, progress=False)
    return dict(data=data, images=n, objects=sum(len(o) for o in some), seed=seed, steps=STEPS, bs=BS, arch=ARCH, voc12=ev.voc12, coco=ev.coco, machine=machine())

def picture(rows):
    "AP50 and COCO AP against the number of images, a dot per seed and a line through the means"
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from statistics import mean
    fig,axs = plt.subplots(1, 2, figsize=(9,3.4), layout='constrained')
    for ax,(k,title) in zip(axs, (('voc12','AP50'), ('coco','COCO AP'))):
        for d,name in (('bccd','BCCD, 3 classes'), ('neu','NEU-DET, 6 classes')):
            ns = sorted({o['images'] for o in rows if o['data']==d})
            at = lambda n: [o[k] for o in rows if (o['data'],o['images'])==(d,n)]
            line, = ax.plot(ns, [mean(at(n)) for n in ns], label=name)
            for n in ns: ax.plot([n]*len(at(n)), at(n), '.', color=line.get_color(), alpha=.6)
        ax.set(xscale='log', xlabel='training images', title=f'{title} on the test split', ylim=(0,1))
        ax.set_xticks([25,50,100,200,400,800], [25,50,100,200,400,800], minor=False)
        ax.minorticks_off(); ax.grid(alpha=.3); ax.legend()
    fig.savefig(ROOT/'images/how_many.png', dpi=90)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('sets', nargs='*', help='bccd, neu; left out: both')
    parser.add_argument('--seeds', default='42,43')
    args = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for seed in map(int, args.seeds.split(',')):
        for data in args.sets or SETS:
            for n in SETS[data][1]:
                if any((o['data'],o['images'],o['seed'])==(data,n,seed) for o in rows): continue
                rows.append(measure(data, n, seed))
                write(RESULTS, json.dumps(rows, indent=1) + '\n')
                print({k: rows[-1][k] for k in ('data','images','seed','voc12','coco')}, flush=True)
    picture(rows)
