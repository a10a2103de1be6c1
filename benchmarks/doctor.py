"""Does `check_dataset` take longer than reading the images? Both on the same 5,000 drawn images, in the same process, turn by turn.

    python benchmarks/doctor.py            # 5,000 images, results into benchmarks/results/doctor.json
    python benchmarks/doctor.py --n 500

"Reading" is what a training reads before it starts: `read_voc` of the three splits and `verify_pixels`, which decodes every image. Beside it stands Pillow
decoding the images alone, in one thread and in several, without looking at an annotation.
"""
import argparse, json, tempfile, time
from pathlib import Path

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

if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--n', type=int, default=5000)
    p.add_argument('--turns', type=int, default=3)
    args = p.parse_args()
    res = measure(args.n, args.turns)
    print(json.dumps(res, indent=1))
    if args.n == 5000: write(ROOT/'benchmarks'/'results'/'doctor.json', json.dumps(res, indent=1)+'\n')
