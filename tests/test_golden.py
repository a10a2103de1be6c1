"""A fixed detector finds in fixed images what it found when `golden/make.py` was run.

Boxes may differ by 0.05 pixels and scores by 1e-4: another processor adds numbers in another order, which changes the sixth digit of
float32 results. A change in preprocessing, decoding or suppression moves them by far more (see `test_a_small_change_shows`)."""
import json
from pathlib import Path

import PIL, pytest, torch
from PIL import Image

from ssd_fastai.boxes import box_iou
from ssd_fastai.detector import decode_output, image_tensor
from ssd_fastai.files import load_detector
from ssd_fastai.images import load_image
from ssd_fastai.resize import Fit

pytest.importorskip('timm', reason='the fixed detector has a timm body: pip install timm')
HERE     = Path(__file__).resolve().parent/'golden'
FILES    = sorted((HERE/'images').iterdir())
EXPECTED = json.loads((HERE/'expected.json').read_text(encoding='utf-8'))
# Pillow 13 rounds some pixels of a resized image differently than 12 (17 of 23,040 of `palette.png`, by 1); the expectations are of 13
PX,SCORE = (0.05, 1e-4) if int(PIL.__version__.split('.')[0])>=13 else (0.5, 3e-3)

@pytest.fixture
def det(): return load_detector(HERE/'detector.safetensors')

def rows(o):
    "Detections as plain lists"
    return o if isinstance(o, dict) else dict(size=list(o.size), labels=o.labels.tolist(), scores=o.scores.tolist(), boxes=o.boxes.tolist())

def differ(a, b, px=PX, score=SCORE, edge=None):
    "Detections of `a` that agree with none of `b`; those that score less than `score` above the threshold `edge` may be missing"
    a,b,left = rows(a),rows(b),[]
    for l,s,box in zip(a['labels'], a['scores'], a['boxes']):
        if edge is not None and s < edge+score: continue
        like = any(l==m and abs(s-t)<=score and max(abs(p-q) for p,q in zip(box, o))<=px for m,t,o in zip(b['labels'], b['scores'], b['boxes']))
        if not like: left.append((l, round(s, 4), box))
    return left

def same(xs, ys, **kw): return not [d for a,b in zip(xs, ys, strict=True) for d in differ(a, b, **kw)+differ(b, a, **kw)]

def test_the_files_are_small():
    assert (HERE/'detector.safetensors').stat().st_size < 500_000
    assert sum(o.stat().st_size for o in FILES) < 300_000

@pytest.mark.parametrize('method', ['squish', 'pad'])
def test_expected_detections(det, method):
    det.method = method
    want = [EXPECTED[f'{method} {f.name}'] for f in FILES]
    got  = det.detect(FILES)
    assert sum(len(o['labels']) for o in want) >= 10
    for f,w,g in zip(FILES, want, got, strict=True):
        assert list(g.size)==w['size'], f.name
        assert not differ(w, g), f.name
        assert not differ(g, w), f.name

def test_a_small_change_shows(det):
    "One grey level more, an IoU threshold lower by 0.1, an input 1 % wider: each changes the result"
    want = det.detect(FILES, score=0.02)
    pics = [Image.eval(load_image(f), lambda v: min(255, v+1)) for f in FILES]
    assert not same(want, det.detect(pics, score=0.02))
    assert not same(want, det.detect(FILES, score=0.02, iou=0.4))
    det.size = (80, 97)
    assert not same(want, det.detect(FILES, score=0.02))

def test_batch_and_order(det):
    want = det.detect(FILES, bs=1)
    for bs in (3, 8): assert same(want, det.detect(FILES, bs=bs)), bs
    assert same(want[::-1], det.detect(FILES[::-1], bs=4))
    assert same([want[0]]*7, det.detect([FILES[0]]*7, bs=7))

def test_padding_is_no_object(det):
    "An image padded by `method='pad'` gives what the same image gives when it is padded by hand"
    det.method = 'pad'
    f   = next(f for f in FILES if load_image(f).size[::-1]==det.size)
    im  = load_image(f)
    h,w = det.size
    big = Image.new('RGB', (w, 2*h), (124, 116, 104))   # pad would halve it: compare with the input made by hand
    big.paste(im, (0, h//2))
    got = det.detect(big)
    by_hand = Image.new('RGB', (w, h), (124, 116, 104))
    by_hand.paste(big.resize((w//2, h), Image.BILINEAR), (w//4, 0))
    det.method = 'squish'
    want = det.detect(by_hand)
    want.boxes = (want.boxes - torch.tensor([w/4, 0, w/4, 0]))*2
    inside = want.boxes.clamp(min=0).minimum(torch.tensor([w, 2*h, w, 2*h]))
    want.boxes = inside
    assert same([want], [got], px=0.1)

def test_bfloat16(det):
    """Logits rounded to 8 bits, as a model under autocast gives them. Measured: scores differ by at most 0.0083, boxes by at most 0.08
    pixels. Of two boxes that overlap and score nearly the same, the other one may stay"""
    fits = [Fit(det.size, det.size)]*len(FILES)
    x = torch.stack([image_tensor(load_image(f).resize(det.size[::-1], Image.BILINEAR)) for f in FILES])
    with torch.no_grad():
        full = det.model(x)
        with torch.autocast('cpu', dtype=torch.bfloat16): half = det.model(x)
    assert half[0].dtype==torch.bfloat16
    (b1,s1),(b2,s2) = decode_output(det.model, *full),decode_output(det.model, *half)
    assert b2.dtype==s2.dtype==torch.float32
    sure  = s1.amax(-1)>0.11
    scale = torch.tensor([det.size[1], det.size[0]]*2)/2
    assert (s1-s2).abs().max() < 0.02
    assert ((b1-b2).abs()*scale)[sure].max() < 0.2
    full,half = det.detections(b1, s1, fits),det.detections(b2, s2, fits)
    for a,b in [*zip(full, half), *zip(half, full)]:
        for l,s,box in differ(a, b, px=0.2, score=0.02, edge=det.thresholds.score):   # only where one with nearly the same score took its place
            rival = b.boxes[(b.labels==l) & (b.scores>s-0.02)]
            assert box_iou(torch.tensor([box]), rival).max() > det.thresholds.iou-0.02
    assert sum(map(len, full)) >= 20

def test_float32_under_autocast(det):
    "`detect` turns autocast off, so nothing changes"
    want = det.detect(FILES)
    with torch.autocast('cpu', dtype=torch.bfloat16): got = det.detect(FILES)
    assert same(want, got, px=0, score=0)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device here')
def test_cuda(det):
    "On a GPU boxes agree within 0.2 pixels, scores within 0.002 (TF32 convolutions)"
    want = det.detect(FILES)
    det.model.cuda()
    assert same(want, det.detect(FILES), px=0.2, score=2e-3, edge=det.thresholds.score)
