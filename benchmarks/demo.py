"""`ssd-demo` as `make demo` runs it: its time and its AP on the drawn test split into benchmarks/results/demo.json, its picture into images/demo.png.

    python benchmarks/demo.py
"""
import csv, json, subprocess, time
from pathlib import Path

from PIL import Image

from bccd import ROOT, machine

OUT = ROOT/'runs'/'demo'

if __name__ == '__main__':
    start = time.time()
    subprocess.run(['ssd-demo'], cwd=ROOT, check=True)
    seconds = time.time()-start
    ev   = json.loads((OUT/'evaluation.json').read_text())
    rows = list(csv.DictReader(open(OUT/'history.csv')))
    res  = dict(command='ssd-demo', seconds=round(seconds), epochs=len(rows), **{k:ev[k] for k in ('voc12', 'voc07', 'coco', 'seed', 'weights', 'counts', 'protocol')},
                per_class={k:o['voc12'] for k,o in ev['per_class'].items()}, machine=machine())
    (ROOT/'benchmarks/results/demo.json').write_text(json.dumps(res, indent=1) + '\n')
    img = Image.open(OUT/'detections.png').convert('RGB')
    img.thumbnail((1000, 1000))
    img.quantize(128).save(ROOT/'images/demo.png', optimize=True)
    print({k:res[k] for k in ('seconds', 'voc12', 'coco')})
