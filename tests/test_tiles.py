"""Detection in tiles, from the image to the answer: a model that sees every red thing of some size, and nothing smaller."""
import numpy as np, pytest, torch
from PIL import Image, ImageDraw
from torch import nn
from ssd_fastai.boxes import box_iou, px_to_unit
from ssd_fastai.detector import Detector
from ssd_fastai.records import GroundTruth

VOCAB = ['#na#', 'red', 'blue']

def rectangles(mask):
    "(x1,y1,x2,y2) of each rectangle of a mask [H,W] in which rectangles do not touch"
    up, left = np.pad(mask, ((1,0),(0,0)))[:-1], np.pad(mask, ((0,0),(1,0)))[:,:-1]
    run = lambda o: len(o) if o.all() else int(o.argmin())
    return [(x, y, x+run(mask[y,x:]), y+run(mask[y:,x])) for y, x in np.argwhere(mask & ~up & ~left)]

class Boxes:
    "A coder that leaves boxes as they are"
    def decode(self, offsets, anchors, cells): return offsets

class SeesColours(nn.Module):
    "Reports red and blue rectangles whose sides are at least `least` pixels of what it sees; `whole`: none that touch its border"
    def __init__(self, n=200, least=4, whole=False):
        super().__init__()
        self.n, self.least, self.whole, self.coder = n, least, whole, Boxes()
        self.register_buffer('anchors', torch.zeros(n,4)); self.register_buffer('cells', torch.zeros(n,2)); self.seen = []

    def forward(self, x):
        boxes, logits = torch.zeros(len(x), self.n, 4), torch.full((len(x), self.n, 3), -9.)
        for i, o in enumerate(x.numpy()):
            found = [(k+1, b) for k, c in enumerate((0,2)) for b in rectangles(o[c]-o[1]>0.25) if min(b[2]-b[0], b[3]-b[1])>=self.least
                     and not (self.whole and (min(b)==0 or b[2]==x.shape[3] or b[3]==x.shape[2]))]
            for j, (k, b) in enumerate(found[:self.n]):
                boxes[i,j], logits[i,j,k] = px_to_unit([b], tuple(x.shape[2:]))[0], 3+b[2]/1e4
        self.seen.append(len(x))
        return logits, boxes

def drawn(rng, size, n, side):
    "An image of `size` (height, width) with `n` rectangles whose sides lie in the range `side`, and its ground truth"
    im = Image.new('RGB', size[::-1], (120,120,120))
    d, boxes, names = ImageDraw.Draw(im), [], []
    while len(boxes)<n:
        w, h = rng.integers(*side, 2, endpoint=True)
        x, y = rng.integers(0, size[1]-w), rng.integers(0, size[0]-h)
        if any(x-8<b[2] and b[0]<x+w+8 and y-8<b[3] and b[1]<y+h+8 for b in boxes): continue
        boxes.append((x, y, x+w, y+h)); names.append(VOCAB[int(rng.integers(1,3))])
        d.rectangle((x, y, x+w-1, y+h-1), fill=(255,20,20) if names[-1]=='red' else (20,20,255))
    return im, GroundTruth(boxes, names, size=size)

def recall(d, truth, iou=0.5):
    "(share of the objects that a detection of their class overlaps by more than `iou`, detections that are too many)"
    o   = box_iou(truth.boxes, d.boxes)*(truth.labels(VOCAB)[:,None]==d.labels)
    hit = (o.amax(1)>iou).float().mean().item() if len(d) else 0.
    return hit, len(d)-len(truth)

def detector(**kwargs): return Detector(SeesColours(), VOCAB, 320, **kwargs)

def test_small_objects_of_a_large_photograph():
    "4000×3000 with objects of 20 pixels: the squished image finds none, the tiles find all, each once"
    im, truth = drawn(np.random.default_rng(0), (3000,4000), 60, (20,20))
    det = detector()
    assert recall(det.detect(im, max_per_image=1000), truth)[0] < 0.2
    assert recall(det.detect(im, tile=640, max_per_image=1000), truth) == (1, 0)
    assert max(det.model.seen)==16 and sum(det.model.seen)==1+48+1   # 16 tensors at a time; the whole image is looked at last

@pytest.mark.parametrize('tile,overlap,seed', [(640,0.2,1), ((480,640),0.2,2), (400,0.5,3), (640,0.,4), (333,0.1,5)])
def test_objects_of_all_sizes(tile, overlap, seed):
    "Small, cut by edges, and larger than a tile: one box each, inside the image"
    im, truth = drawn(np.random.default_rng(seed), (1500,2100), 12, (25,700))
    d = detector(tile=tile, tile_overlap=overlap).detect(im)
    assert recall(d, truth, 0.8 if overlap else 0.5) == (1, 0)
    assert (d.boxes>=0).all() and (d.boxes<=torch.tensor([2100,1500,2100,1500])).all() and d.size==(1500,2100)

def test_what_no_tile_can_hold_is_found_in_the_whole_image():
    "By a model that reports no pieces; what fits into a tile comes from the tiles alone"
    boxes = [(200,150,1900,900), (100,1100,125,1125), (1500,1000,1800,1200)]
    im = Image.new('RGB', (2100,1500), (120,120,120))
    for x1, y1, x2, y2 in boxes: ImageDraw.Draw(im).rectangle((x1, y1, x2-1, y2-1), fill=(20,20,255))
    truth = GroundTruth(boxes, ['blue']*3, size=(1500,2100))
    d = Detector(SeesColours(whole=True), VOCAB, 320).detect(im, tile=640)
    assert recall(d, truth, 0.8)==(1, 0)

def test_objects_at_the_edges_of_the_image_and_of_tiles():
    "In the corners, along the borders, and centred where windows begin and end"
    boxes = [(0,0,30,30), (1370,0,1400,30), (0,870,30,900), (1370,870,1400,900), (0,300,60,340), (600,860,660,900),
             (495,400,525,430), (625,100,655,130), (505,610,535,640)]
    im = Image.new('RGB', (1400,900), (120,120,120))
    for x1, y1, x2, y2 in boxes: ImageDraw.Draw(im).rectangle((x1, y1, x2-1, y2-1), fill=(255,20,20))
    truth = GroundTruth(boxes, ['red']*len(boxes), size=(900,1400))
    for tile, overlap in ((640,0.2), (300,0.25), ((900,500),0.1)):
        assert recall(detector().detect(im, tile=tile, tile_overlap=overlap), truth, 0.7) == (1, 0)

def test_mirrored_batched_padded_and_as_bytes():
    "The same answer with mirror images, with any batch, with padding, and from a PNG's bytes"
    from io import BytesIO
    im, truth = drawn(np.random.default_rng(7), (900,1300), 15, (25,200))
    raw = BytesIO()
    im.save(raw, 'PNG')
    want = detector().detect(im, tile=400)
    for d in (detector().tta(im, tile=400), detector().detect(im, tile=400, bs=1), detector(method='pad', tile=400).detect(im),
              detector(tile=400).detect(raw), detector(tile=400).detect([raw.getvalue()])[0], detector().predict(im, tile=400)[0]):
        assert len(d)==len(want)==len(truth) and recall(d, truth, 0.8)==(1, 0)

def test_evaluation_counts_in_the_whole_image(tmp_path):
    "Each object once, although several tiles see it"
    rng, records = np.random.default_rng(8), []
    for i in range(2):
        im, truth = drawn(rng, (900,1300), 12, (10,60))
        im.save(tmp_path/f'{i}.png')
        records.append(GroundTruth(truth.boxes, truth.names, size=truth.size, file=tmp_path/f'{i}.png'))
    ev = detector(tile=400).evaluate(records, progress=False)
    assert ev.voc12==1 and ev.counts['detections']==ev.counts['objects']==24 and ev.protocol['tile']==[400,400]
    assert detector().evaluate(records, progress=False).voc12 < 1

def test_an_image_without_objects_and_one_of_a_pixel():
    det = detector(tile=100)
    assert [len(det.detect(Image.new('RGB', o, (120,120,120)))) for o in ((900,700), (1,1), (1,500))] == [0,0,0]
