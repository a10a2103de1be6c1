"""Small objects in large photographs: how many does a detector find whole, squished to its input, and in tiles? And large ones?

    python benchmarks/tiles.py              # trains one model on windows, results into benchmarks/results/tiles.json
    python benchmarks/tiles.py --epochs 1 --images 8 --out -

Drawn photographs: circles, squares and triangles on uneven ground with noise. Training images are 1024×768, with 14 objects of 20 px and two of 60 to
500 px. They are cut into windows of 320 px, which the network (EfficientNet-Lite0 from ImageNet weights) sees at 256. The two test images are 4000×3000,
with 60 objects of 20 px, six of 100 to 320 px, and six of 400 to 1200 px, larger than a tile. Recall is the share of the objects with a detection of
their class at IoU above 0.5, at the score threshold for use; `extra` counts the other detections.

The same weights answer in four ways: `squished` (the whole image at 256×256), `tiles` as `detect` does it (with the whole image for what is larger
than a tile), `tiles alone` (without it), and `tiles, no overlap`."""
import argparse, json, sys, tempfile, time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torchvision.ops import box_iou

from bccd import ROOT, machine, write
from ssd_fastai.all import *
from ssd_fastai.images import load_image
from ssd_fastai.records import GroundTruth
from ssd_fastai.tiles import windows

TILE  = 320 # pixels
NAMES = 'circle','square','triangle'

def ground(rng, size):
    "Uneven ground with noise"
    h,w  = size
    low  = Image.fromarray(rng.integers(70, 190, (h//64+2, w//64+2, 3), dtype=np.uint8)).resize((w,h), Image.BICUBIC)
    return Image.fromarray((np.asarray(low)+rng.normal(0, 8, (h,w,1))).clip(0, 255).astype(np.uint8))

def scene(rng, size, sides):
    "An image of `size` (height, width) with an object for each of `sides`, and their boxes and names"
    im,boxes,names = ground(rng, size),[],[]
    d = ImageDraw.Draw(im)
    for s in sorted(sides, reverse=True):
        for _ in range(500):
            x,y = int(rng.integers(0, size[1]-s)),int(rng.integers(0, size[0]-s))
            if all(x-4>b[2] or b[0]>x+s+4 or y-4>b[3] or b[1]>y+s+4 for b in boxes): break
        else: continue
        name,colour = str(rng.choice(NAMES)),tuple(int(o) for o in rng.choice([[20,20,40],[250,240,60],[240,60,60],[40,60,220]]))
        box = x,y,x+s-1,y+s-1
        if name=='circle': d.ellipse(box, fill=colour)
        elif name=='square': d.rectangle(box, fill=colour)
        else: d.polygon([(x+s/2,y), (x,y+s-1), (x+s-1,y+s-1)], fill=colour)
        boxes.append((x,y,x+s,y+s)); names.append(name)
    return im,boxes,names

def draw(folder, seed, n, size, sides):
    "Write `n` scenes; their records"
    rng,records = np.random.default_rng(seed),[]
    for i in range(n):
        im,boxes,names = scene(rng, size, sides(rng))
        records.append(GroundTruth(boxes, names, size=size, file=folder/f'{seed}-{i}.jpg'))
        im.save(records[-1].file, quality=92)
    return records

def train(train, valid, epochs, home):
    "A detector without limits on the number of detections, and the seconds of its training"
    set_seed(42)
    dls   = DetectionDataLoaders.from_records(train, valid, size=256, bs=8, num_workers=0, verify=False, tile=TILE)
    learn = ssd_learner(dls, 'tf_efficientnet_lite0', metrics=[], path=home)
    start = time.perf_counter()
    with learn.no_bar(): learn.fine_tune(epochs)
    det = learn.detector()
    det.thresholds = Thresholds(max_per_image=None)
    return det,time.perf_counter()-start

def tiles_alone(det, file):
    "Detections in the windows of an image, without a look at the whole of it"
    pic   = load_image(file)
    size  = pic.height,pic.width
    wins  = windows(size, TILE)
    found = det.detect([pic.crop(o) for o in wins], tile=0)
    return det.merged(found, wins, size, det.thresholds, file=file)

def kind(box): return 'small' if box[2]-box[0]<=20 else 'up to a tile' if box[2]-box[0]<=TILE else 'larger'

def judge(found, records):
    "Recall of each kind of object, and the detections that are no object"
    hits,extra = {k:[] for k in ('small','up to a tile','larger')},0
    for d,r in zip(found, records):
        iou = box_iou(r.boxes, d.boxes)*(r.labels(d.vocab)[:,None]==d.labels)
        for box,row in zip(r.boxes.tolist(), iou): hits[kind(box)].append(bool((row>0.5).any()))
        extra += int((iou<=0.5).all(0).sum())
    return {k:round(sum(v)/len(v), 3) for k,v in hits.items()} | dict(extra=extra)

def measure(args):
    with tempfile.TemporaryDirectory() as home:
        home  = Path(home)
        few   = lambda rng: [20]*14 + [int(o) for o in rng.integers(60, 500, 2)]
        many  = lambda rng: [20]*60 + [int(o) for o in rng.integers(100, TILE, 6)] + [int(o) for o in rng.integers(400, 1200, 6)]
        data  = draw(home, 1, args.images, (768,1024), few),draw(home, 2, 1, (768,1024), few)
        tests = draw(home, 3, 2, (3000,4000), many)
        files = [o.file for o in tests]
        det,seconds = train(*data, args.epochs, home)
        ways = {'squished':det.detect(files, tile=0), 'tiles':det.detect(files, tile=TILE),
                'tiles alone':[tiles_alone(det, o) for o in files], 'tiles, no overlap':det.detect(files, tile=TILE, tile_overlap=0)}
        return dict(machine=machine(), images=args.images, epochs=args.epochs, seconds=round(seconds), tile=TILE, input=256,
                    objects=Counter(kind(b) for o in tests for b in o.boxes.tolist()), ways={k:judge(v, tests) for k,v in ways.items()})

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=16, help='training images (default: %(default)s)')
    parser.add_argument('--epochs', type=int, default=5, help='passes over their windows, after one with a frozen body (default: %(default)s)')
    parser.add_argument('--out', default=ROOT/'benchmarks/results/tiles.json', help="file for the results, '-' for none")
    args = parser.parse_args()
    text = json.dumps(measure(args), indent=1)
    print(text)
    if str(args.out)!='-': write(Path(args.out), text+'\n')

if __name__=='__main__': sys.exit(main())
