"""Train the small fixed detector of tests/test_golden.py, draw its images, and write down what it finds.

    python tests/golden/make.py             # all three: a new detector, new images, new expectations
    python tests/golden/make.py --expected  # only `expected.json`, from the detector and images that stand here
"""
import json, shutil, sys, tempfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent

def train():
    "Train a detector of 108,000 parameters from random weights on drawn shapes"
    from ssd_fastai.all import (DetectionDataLoaders, SSDLearner, SSDLoss, create_ssd, fused_adamw, save_detector, set_seed, ssd_splitter,
                                synth_voc)
    with tempfile.TemporaryDirectory() as tmp:
        set_seed(0, reproducible=True)
        path  = synth_voc(Path(tmp)/'shapes', n=500, seed=7, n_classes=3)
        dls   = DetectionDataLoaders.from_voc(path, train='trainval', valid='test', size=(80, 96), bs=16, num_workers=0)
        model = create_ssd('test_efficientnet', len(dls.vocab), dls.size, width=16)
        learn = SSDLearner(dls, model, SSDLoss(model, box='giou', box_weight=2.), splitter=ssd_splitter, opt_func=fused_adamw, path=tmp)
        learn.fit_one_cycle(12, 1e-2)
        ev = learn.evaluate(progress=False)
        print(ev)
        save_detector(learn, HERE/'detector.safetensors', info={'command':'python tests/golden/make.py', 'voc12':round(ev.voc12, 3)})
        draw(dls.valid_ds.items)

def draw(records):
    "Small PNG images: odd sizes, turned by EXIF, grey, with alpha, with a palette, of 16 bits, and one without objects"
    shutil.rmtree(HERE/'images', ignore_errors=True)
    (HERE/'images').mkdir()
    ims = [Image.open(r.file).convert('RGB') for r in records[:8]]
    small = [o.resize(hw[::-1]) for o,hw in zip(ims, [(97,131), (151,90), (64,121), (80,96), (99,99), (75,133), (120,61), (88,111)])]
    exif = Image.Exif(); exif[0x0112] = 6
    small[1].transpose(Image.Transpose.ROTATE_90).save(HERE/'images/turned.png', exif=exif)
    small[0].save(HERE/'images/odd.png')
    small[2].convert('L').save(HERE/'images/grey.png')
    alpha = Image.fromarray(np.linspace(0, 255, 80*96).reshape(80, 96).astype(np.uint8))
    small[3].putalpha(alpha); small[3].save(HERE/'images/alpha.png')
    small[4].quantize(32).save(HERE/'images/palette.png')
    Image.fromarray(np.asarray(small[5].convert('L')).astype(np.uint16)*257).save(HERE/'images/deep.png')
    small[6].save(HERE/'images/tall.png'); small[7].save(HERE/'images/wide.png')
    Image.new('RGB', (70, 50), (90, 120, 90)).save(HERE/'images/empty.png')

def expect():
    "Write what the detector finds now, with squished and padded images, at its own thresholds"
    from ssd_fastai.files import load_detector
    det,res = load_detector(HERE/'detector.safetensors'),{}
    for det.method in ('squish', 'pad'):
        for f in sorted((HERE/'images').iterdir()):
            d = det.detect(f)
            res[f'{det.method} {f.name}'] = dict(size=list(d.size), labels=d.labels.tolist(), scores=[round(o, 6) for o in d.scores.tolist()],
                                                 boxes=[[round(p, 4) for p in o] for o in d.boxes.tolist()])
    rows = ',\n'.join(f' {json.dumps(k)}: {json.dumps(v)}' for k,v in res.items())
    (HERE/'expected.json').write_text(f'{{\n{rows}\n}}\n', encoding='utf-8')
    print({k:len(v['labels']) for k,v in res.items()})

if __name__ == '__main__':
    if '--expected' not in sys.argv: train()
    expect()
