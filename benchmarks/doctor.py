"""Does `check_dataset` take longer than reading the images? Both on the same 5,000 drawn images, in the same process, turn by turn.

    python benchmarks/doctor.py            # 5,000 images, results into benchmarks/results/doctor.json
    python benchmarks/doctor.py --n 500
    python benchmarks/doctor.py --camera   # the search for look-alikes among frames of a fixed camera, into doctor_camera.json

"Reading" is what a training reads before it starts: `read_voc` of the three splits and `verify_pixels`, which decodes every image. Beside it stands Pillow
decoding the images alone, in one thread and in several, without looking at an annotation.

`--camera` measures the search alone, on drawn thumbnails: one scene with noise and a cell that flickers (`flicker`), one whose light changes
(`drift`), one with an object at another place in each frame (`object`), and different pictures (`different`). Memory is the peak of the whole
process; importing torch and torchvision alone takes most of it.
"""
import argparse, json, resource, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
from PIL import Image

from bccd import ROOT, machine, write
from ssd_fastai.doctor import check_dataset
from ssd_fastai.readers import map_threads, read_voc, verify_pixels
from ssd_fastai.synth import synth_voc

def decode(file):
    with Image.open(file) as im: im.load()

def read(data):
    for split in ('train','val','test'): verify_pixels(read_voc(data, split, verbose=False))

def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter()-start

def measure(n, turns):
    with tempfile.TemporaryDirectory() as tmp:
        data  = synth_voc(Path(tmp)/'shapes', n=n, seed=1)
        files = sorted(data.glob('JPEGImages/*'))
        ways  = dict(check=lambda: check_dataset(data, 'train', 'val', 'test', size=128), read=lambda: read(data),
                     decode=lambda: [*map(decode, files)], decode_threads=lambda: map_threads(decode, files))
        times = [{k: seconds(f) for k,f in ways.items()} for _ in range(turns)]
    best = {k: min(t[k] for t in times) for k in ways}
    over = {f'check over {k}': round(best['check']/best[k], 3) for k in ways if k!='check'}
    return dict(images=n, turns=turns, **over, seconds={k: round(v, 2) for k,v in best.items()}, machine=machine())

def thumbnails(kind, n, rng):
    "[n,16,16] uint8, in blocks, so that making them takes little memory"
    scene,out = rng.integers(0, 256, (8,8)).repeat(2, 0).repeat(2, 1),np.empty((n,16,16), np.uint8)
    for i in range(n):
        x = scene + rng.normal(0, 1, (16,16))
        if kind=='flicker':   x[4,4] = rng.normal(128, 18)
        if kind=='drift':     x = x*(0.6+0.3*np.sin(9*i/n))
        if kind=='different': x = rng.integers(0, 256, (4,4)).repeat(4, 0).repeat(4, 1)
        if kind=='object':
            a,b = rng.integers(0, 14, 2)
            x[a:a+3,b:b+3] = rng.integers(0, 256)
        out[i] = x.clip(0, 255)
    return out

def search(kind, n):
    "One search, in this process"
    from ssd_fastai.splits import alike
    thumbs = thumbnails(kind, n, np.random.default_rng(0))
    start  = time.perf_counter()
    found  = len(alike(thumbs, np.ones(n)))
    took   = time.perf_counter()-start
    return dict(kind=kind, frames=n, copies=found, seconds=round(took, 2), peak_MiB=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024)

def camera():
    "Searches of growing size, each in a process of its own"
    rows = []
    for kind in ('flicker','drift','object','different'):
        for n in (1000, 2000, 4000, 8000, 50_000):
            out = subprocess.run([sys.executable, __file__, '--search', kind, str(n)], capture_output=True, text=True, check=True).stdout
            rows.append(json.loads(out.splitlines()[-1]))
            print(rows[-1], flush=True)
    return dict(rows=rows, machine=machine())

if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--n', type=int, default=5000)
    p.add_argument('--turns', type=int, default=3)
    p.add_argument('--camera', action='store_true')
    p.add_argument('--search', nargs=2, metavar=('KIND','N'))
    args = p.parse_args()
    if args.search: sys.exit(print(json.dumps(search(args.search[0], int(args.search[1])))))
    if args.camera: sys.exit(write(ROOT/'benchmarks'/'results'/'doctor_camera.json', json.dumps(camera(), indent=1)+'\n'))
    res = measure(args.n, args.turns)
    print(json.dumps(res, indent=1))
    if args.n == 5000: write(ROOT/'benchmarks'/'results'/'doctor.json', json.dumps(res, indent=1)+'\n')
