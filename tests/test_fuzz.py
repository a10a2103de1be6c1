"A few hundred drawn inputs of every kind, sound and damaged: a correct result or one line. The long check is benchmarks/fuzz.py."
import subprocess, sys
import pytest

pytest.importorskip('hypothesis', reason='the inputs are drawn by hypothesis: pip install hypothesis')
pytest.importorskip('timm', reason='the fixed detector has a timm body: pip install timm')
from strategies import KINDS, Room, check_crowd, filled, try_out, verdict
from ssd_fastai.cli import ssd_check, ssd_predict

@pytest.fixture(scope='module')
def room(tmp_path_factory): return Room(tmp_path_factory.mktemp('fuzz')/'room')

@pytest.mark.parametrize('name', KINDS)
def test_drawn_inputs(name, room):
    seen,n = [],KINDS[name].few//2
    try_out(KINDS[name], n, room, tell=lambda res,secs: seen.append(res))
    assert len(seen)>=n*0.9 and 'correct' in seen+['correct']*(name in ('model files','command lines'))

def test_a_folder_with_broken_images(room, tmp_path):
    res = check_crowd(tmp_path/'crowd', 200, room.model)
    assert res['done']+res['failed']==200 and res['failed']==16 and res['broken']['xml']==4

@pytest.mark.parametrize('f,args', [(ssd_check, ['@nowhere']), (ssd_predict, ['@m.safetensors','@m.safetensors'])], ids=['check','predict'])
def test_command_lines_as_processes(f, args, room):
    code = f'from ssd_fastai.cli import {f.__name__}; {f.__name__}()'
    p = subprocess.run([sys.executable, '-c', code, *filled(f, args, room)], capture_output=True, text=True, timeout=300)
    assert verdict(f.__name__.replace('_','-'), p.returncode, p.stdout, p.stderr)=='refused'
