"""On a graphics card: `ssd-train` on BCCD and on 10,000 drawn images of 20 classes. Minutes, images a second and AP into benchmarks/results/gpu.json.

    python benchmarks/gpu.py          # all runs, at most 8 minutes each; the same command goes on with one that was stopped
    python benchmarks/gpu.py shapes   # the runs that have this word

The minutes are those of the whole command: start-up, the check of every image, validation after each epoch, checkpoints, and the evaluation.
"""
import json, os, shlex, subprocess, sys, time

import torch

from bccd import DATA, ROOT, WORK, figures, run, write

RESULTS = ROOT/'benchmarks'/'results'/'gpu.json'
SHAPES  = 'ssd-train shapes20 --arch resnet34 --size 224 --bs 64 --epochs 10 --weights none'
LINES = {
    'gpu-bccd':          'ssd-train BCCD --arch tf_efficientnet_lite0 --size 256x320 --bs 8 --epochs 30 --weights imagenet',
    'gpu-shapes20-ssd':  SHAPES,
    'gpu-shapes20-classic': f'{SHAPES} --head classic',
}

def data(name):
    "The folder of a data set, as the lines call it"
    if name == 'BCCD':
        if not (WORK/name).exists(): (WORK/name).symlink_to(DATA)
    else:
        from ssd_fastai.synth import synth_voc
        synth_voc(WORK/name, n=10_000, seed=7, n_classes=20)

def train(name, line):
    "Train in at most 8 minutes; seconds so far, those of earlier starts with them"
    spent = WORK/f'{name}.seconds'
    past  = float(spent.read_text()) if spent.exists() else 0.
    start = time.time()
    try: subprocess.run([*shlex.split(line), '--resume', '--out', f'runs/{name}'], cwd=WORK, check=True, timeout=480)
    except subprocess.TimeoutExpired: sys.exit(f'{name}: 8 minutes are over; the same command goes on from the last epoch')
    finally: write(spent, f'{past+time.time()-start:.1f}')
    return float(spent.read_text())

def measure(name, line):
    "The row of one run"
    args = shlex.split(line)
    data(args[1])
    seconds = train(name, line)
    res = figures(f'runs/{name}', args[1])
    n   = len((WORK/args[1]/'ImageSets/Main/train.txt').read_text().split())
    return dict(line=line, minutes=round(seconds/60, 2), images_per_second=round(n*int(args[args.index('--epochs')+1])/seconds, 1), images=n, **res,
                machine=f'{torch.cuda.get_device_name()}, {os.cpu_count()} cores')

if __name__ == '__main__':
    if not torch.cuda.is_available(): sys.exit('no graphics card here: these runs would take hours')
    WORK.mkdir(parents=True, exist_ok=True)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name,line in LINES.items():
        if name in rows or not any(w in name for w in sys.argv[1:] or ['']): continue
        rows[name] = measure(name, line)
        write(RESULTS, json.dumps(rows, indent=1)+'\n')
        print(name, {k:rows[name][k] for k in ('minutes', 'images_per_second', 'val_voc12', 'test_voc12', 'test_coco')}, flush=True)
