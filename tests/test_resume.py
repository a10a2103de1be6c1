"`ssd-train` killed, interrupted, out of disk: it resumes, and ends with the weights of a run that was not disturbed."
import os, signal, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'benchmarks'))
from survival import difference, nursery, prepare, survive, wait_until

@pytest.fixture(scope='module')
def start():
    with nursery() as start: yield start

@pytest.fixture(scope='module')
def alone(start, tmp_path_factory):
    "A run that is not disturbed: (its arguments, its folder)"
    d = tmp_path_factory.mktemp('alone')
    argv = prepare(d, 12)
    assert start([*argv, '--out',str(d/'run')], d/'log').wait() == 0, (d/'log').read_text()
    return argv, d/'run'

def test_kills(start, alone, tmp_path):
    argv,run = alone
    res = survive(start, argv, tmp_path/'run', 2, kinds=('train','write'))
    assert res['hits'] == 2 and res['starts'] == 3, res
    assert res['said'][0] == 'starting afresh' and all(o.startswith('resumed at epoch') for o in res['said'][1:]), res
    assert difference(run/'model.safetensors', tmp_path/'run/model.safetensors') == 0
    assert (run/'evaluation.json').read_text() == (tmp_path/'run/evaluation.json').read_text()
    lines = [(o/'history.csv').read_text().splitlines() for o in (run, tmp_path/'run')]
    rows  = [[l.split(',')[:-2] for l in o] for o in lines]   # without time and stage
    assert rows[0] == rows[1]

def last_lines(log): return [o for o in log.read_text().splitlines() if o.startswith('ssd-train:')]

def test_interrupt_then_full_disk(start, alone, tmp_path):
    argv,run = alone
    out,last = tmp_path/'run',tmp_path/'run/checkpoints/last.pt'
    go = lambda log, **kw: start([*argv, '--out',str(out), '--resume'], tmp_path/log, **kw)

    p = go('first')
    assert wait_until(p, (out/'history.csv').exists, 'a checkpoint')   # the history is written after it
    os.kill(p.pid, signal.SIGSTOP)                                      # so that it does not end while the second tries
    assert go('second').wait() == 2 and 'another run is writing' in (tmp_path/'second').read_text()
    os.killpg(p.pid, signal.SIGINT)                                     # as a terminal does: loading processes as well
    os.kill(p.pid, signal.SIGCONT)
    assert p.wait() == 130
    said = last_lines(tmp_path/'first')
    assert len(said) == 1 and '--resume goes on' in said[0], (tmp_path/'first').read_text()
    assert 'Traceback' not in (tmp_path/'first').read_text()

    before = last.read_bytes()
    assert go('full', limit=100_000).wait() == 2                        # bytes a file: real writes that fail
    said = last_lines(tmp_path/'full')
    assert len(said) == 1 and 'could not be written' in said[0] and 'is kept' in said[0], (tmp_path/'full').read_text()
    assert last.read_bytes() == before and not list(out.rglob('*.part'))

    other = start([*argv, '--epochs','7', '--out',str(out), '--resume'], tmp_path/'other')
    assert other.wait() == 2 and 'epochs was 12, now 7' in (tmp_path/'other').read_text()
    assert last.read_bytes() == before

    p = go('end')
    assert p.wait() == 0 and 'resumed at epoch' in (tmp_path/'end').read_text()
    assert difference(run/'model.safetensors', out/'model.safetensors') == 0
