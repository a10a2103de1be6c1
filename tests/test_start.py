"What a start costs: scripts say --help and --version without torch, and a loaded detector answers without fastai."
import os, subprocess, sys, time
from configparser import ConfigParser
from pathlib import Path
import pytest

ROOT  = Path(__file__).resolve().parent.parent
MODEL = ROOT/'tests/golden/detector.safetensors'
HEAVY = 'torch','torchvision','fastai','pandas','matplotlib','numpy','PIL'                     # none for --help
SERVE = 'fastai','pandas','matplotlib','ssd_fastai.metrics','ssd_fastai.analysis','onnx','onnxruntime','IPython' # none to detect

def scripts():
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    found = [tuple(o.split('=')[1].strip().split(':')) for o in cfg['DEFAULT']['console_scripts'].splitlines() if o.strip()]
    return [o for o in found if o[0]=='ssd_fastai.cli'] # the page's is in a module of its own, with the page

def python(code, *args):
    "Standard output of a new Python"
    res = subprocess.run([sys.executable, '-c', code, *args], capture_output=True, text=True, cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS':'1'})
    assert res.returncode==0, res.stderr[-2000:]
    return res.stdout

SCRIPT = """
import sys
from importlib import import_module
room,f,option,*heavy = sys.argv[1:]
try: getattr(import_module(room), f)([option])
except SystemExit as e: assert not e.code, e.code
print('loaded:', [o for o in heavy if o in sys.modules])
"""

@pytest.mark.parametrize('option', ['--help','--version'])
@pytest.mark.parametrize('room,f', scripts(), ids=lambda o: o)
def test_help_and_version_load_nothing_heavy(room, f, option):
    out = python(SCRIPT, room, f, option, *HEAVY)
    assert out.endswith('loaded: []\n'), out[-200:]
    assert f.replace('_','-') in out and ('torch ' in out if option=='--version' else '--version' in out)

def test_help_takes_as_long_as_a_small_import():
    "Processor seconds, the best of three beside Python alone: 0.15 to 0.25 more where this was written; other programs disturb"
    def best(code, *args):
        times = []
        for _ in range(3):
            start = os.times()
            python(code, *args)
            end = os.times()
            times.append(end.children_user+end.children_system-start.children_user-start.children_system)
        return min(times)
    if os.name=='nt': pytest.skip('Windows does not count the time of children')
    assert best(SCRIPT, 'ssd_fastai.cli', 'ssd_predict', '--help') < best('pass')+1

DETECT = """
import sys
from ssd_fastai.files import load_detector
det = load_detector(sys.argv[1], precision='auto')
d = det.detect(sys.argv[2])
print(len(d), [o for o in sys.argv[3:] if o in sys.modules])
"""

def test_load_and_detect_load_only_what_detects():
    image = sorted((ROOT/'tests/golden/images').iterdir())[0]
    out = python(DETECT, str(MODEL), str(image), *SERVE)
    assert out.split(' ', 1)[1]=='[]\n', out

def test_version_is_there():
    assert python('import ssd_fastai as s; print(s.__version__)').strip()[0].isdigit()
    assert python('import sys, ssd_fastai; print([o for o in ("importlib.metadata","torch") if o in sys.modules])').strip() in ('[]',"['importlib.metadata']")
    with pytest.raises(AttributeError): __import__('ssd_fastai').nothing
