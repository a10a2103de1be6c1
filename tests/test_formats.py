"""One detector in three formats finds the same, each file opened in a fresh process."""
import json, subprocess, sys
from pathlib import Path

import pytest

TRAIN = """
from ssd_fastai.all import *
set_seed(0, reproducible=True)
dls   = DetectionDataLoaders.from_voc(synth_voc('shapes', n=30, seed=1), size=96, bs=4, num_workers=0)
learn = ssd_learner(dls, resnet18, pretrained=False, path='.')
learn.fit(1, 1e-3)
learn.export('m.pkl'); save_detector(learn, 'm.safetensors'); export_onnx(learn, 'm.onnx'); export_onnx(learn, 'all.onnx', suppress=True)
"""
SHOW = "import json; d = m.detect(sorted(__import__('glob').glob('shapes/JPEGImages/*.jpg'))[:7], score=0.); " \
       "print('@', json.dumps([[o.boxes.tolist(), o.labels.tolist(), o.scores.tolist()] for o in d]))"
LOAD = {
    'm.pkl':         "import warnings; warnings.simplefilter('ignore'); from fastai.vision.all import *; m = load_learner('m.pkl'); ",
    'm.safetensors': "from ssd_fastai.files import load_detector; m = load_detector('m.safetensors'); ",
    'm.onnx':        "from ssd_fastai.files import load_detector; m = load_detector('m.onnx'); ",
    'all.onnx':      "from ssd_fastai.files import load_detector; m = load_detector('all.onnx'); ",
}

def python(code, cwd):
    res = subprocess.run([sys.executable, '-c', code], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert res.returncode == 0, res.stderr[-2000:]
    return res.stdout

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('formats')
    python(TRAIN, path)
    return path

def test_files_say_the_same(folder):
    found = {k: json.loads(python(v + SHOW, folder).split('@')[-1]) for k,v in LOAD.items()}
    first = found['m.pkl']
    assert sum(len(o[2]) for o in first) > 50
    for name in ('m.safetensors', 'm.onnx', 'all.onnx'):
        for (b1,l1,s1),(b2,l2,s2) in zip(first, found[name]):
            assert sorted(l1) == sorted(l2), name
            assert max(abs(p-q) for p,q in zip(s1, s2)) < 1e-4, name
            a,b = (sorted((l, *(round(o) for o in box)) for l,box in zip(ls, bs)) for ls,bs in ((l1,b1), (l2,b2)))
            assert sum(p == q for p,q in zip(a, b)) > 0.9*len(a), name

def test_no_fastai_needed(folder):
    out = python(LOAD['m.safetensors'] + "import sys; print('fastai' in sys.modules)", folder)
    assert out.strip().endswith('False')
