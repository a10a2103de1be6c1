"""The augmentation of the batch beside torchvision's transforms image by image: AP on the validation splits after the same epochs, paired by seed.

    python benchmarks/augment.py      # into benchmarks/results/augment.json; finished rows are kept

`batch` is the default, `augment='default'`; `each` is `augment=default_augment()`, the same zoom-out, crop, flip and colours as a list of transforms.
"""
import argparse, json, random, time
from pathlib import Path
from statistics import mean

from bccd import ROOT, SETS_AT, machine, write

RESULTS = ROOT/'benchmarks'/'results'/'augment.json'
SETS    = dict(bccd=('bccd/BCCD', (256,320), 205), neu=('neu', (224,224), 300))

def measure(data, how, seed, epochs):
    "Train on some images of a set: AP on its validation split"
    from fastai.vision.all import set_seed
    from ssd_fastai.data import DetectionDataLoaders, default_augment
    from ssd_fastai.learner import ssd_learner
    from ssd_fastai.readers import read_split
    folder,size,n = SETS[data]
    train,valid = (read_split(SETS_AT/folder, o, verbose=False) for o in ('train','val'))
    set_seed(seed, reproducible=True)
    augment = default_augment() if how=='each' else 'default'
    some  = type(train)(random.Random(0).sample(list(train), min(n, len(train))))
    dls   = DetectionDataLoaders.from_records(some, valid, size=size, augment=augment, vocab=sorted({o for r in train for o in r.names}), verify=False)
    learn = ssd_learner(dls, 'tf_efficientnet_lite0')
    start = time.time()
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(epochs)
    took = time.time()-start
    ev = learn.evaluate(progress=False)
    return dict(data=data, augment=how, seed=seed, epochs=epochs, images=n, seconds=round(took, 1), voc12=ev.voc12, coco=ev.coco, machine=machine())

def summary(rows):
    "Mean of each, and of the differences"
    for data in SETS:
        at = {(o['augment'],o['seed']):o for o in rows if o['data']==data}
        seeds = sorted({s for _,s in at if ('batch',s) in at and ('each',s) in at})
        if not seeds: continue
        of = lambda k,how: [at[how,s][k] for s in seeds]
        diff = [a-b for a,b in zip(of('coco','batch'), of('coco','each'))]
        print(f"{data}: AP50 batch {mean(of('voc12','batch')):.3f}, each {mean(of('voc12','each')):.3f}; COCO AP {mean(of('coco','batch')):.3f}, {mean(of('coco','each')):.3f}; "
              f"differences {' '.join(f'{o:+.3f}' for o in diff)}; seconds {mean(of('seconds','batch')):.0f}, {mean(of('seconds','each')):.0f}")

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', default='1,2,3')
    p.add_argument('--epochs', type=int, default=4)
    a = p.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for seed in map(int, a.seeds.split(',')):
        for data in SETS:
            for how in ('batch','each'):
                here = dict(data=data, augment=how, seed=seed, epochs=a.epochs)
                if any(all(o[k]==v for k,v in here.items()) for o in rows): continue
                rows.append(measure(data, how, seed, a.epochs))
                write(RESULTS, json.dumps(rows, indent=1)+'\n')
                print({k:rows[-1][k] for k in (*here,'seconds','voc12','coco')}, flush=True)
    summary(rows)
