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
    assert go('full', limit=300_000).wait() == 2                        # bytes a file: real writes that fail
    said = last_lines(tmp_path/'full')
    assert len(said) == 1 and 'could not be written' in said[0] and 'is kept' in said[0], (tmp_path/'full').read_text()
    assert last.read_bytes() == before and not list(out.rglob('*.part'))

    other = start([*argv, '--epochs','7', '--out',str(out), '--resume'], tmp_path/'other')
    assert other.wait() == 2 and 'epochs was 12, now 7' in (tmp_path/'other').read_text()
    assert last.read_bytes() == before

    p = go('end')
    assert p.wait() == 0 and 'resumed at epoch' in (tmp_path/'end').read_text()
    assert difference(run/'model.safetensors', out/'model.safetensors') == 0

# --- `train_run`, in this process

@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    from ssd_fastai.synth import synth_voc
    return synth_voc(tmp_path_factory.mktemp('data')/'shapes', n=40, seed=1)

@pytest.fixture(scope='module')
def go(shapes):
    "`train_run` on a tiny network"
    from functools import partial
    from ssd_fastai.all import DetectionDataLoaders
    from ssd_fastai.runs import train_run
    loaders = partial(DetectionDataLoaders.from_voc, shapes, size=64, bs=7, num_workers=0)
    return partial(train_run, loaders, 'test_resnet', weights='none', precision='float32')

def stop_in(epoch):
    from ssd_fastai.all import Callback
    class StopIn(Callback):
        def after_step(self):
            if self.epoch == epoch: raise KeyboardInterrupt
    return StopIn()

def rows(out): return (out/'history.csv').read_text().splitlines()[1:]
def log(out): return (out/'train.log').read_text()

def planned(monkeypatch, epochs):
    "Let every plan find this number of epochs, as a machine of a certain speed would"
    from ssd_fastai.runs import TimePlan
    def plan(self, n_iter): self.epochs = epochs
    monkeypatch.setattr(TimePlan, 'plan', plan)

def test_minutes_are_so_many_epochs(go, tmp_path, monkeypatch):
    "Timing changes nothing: interrupted, resumed, the weights are those of the planned number of epochs"
    planned(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt): go(tmp_path/'time', minutes=60, cbs=stop_in(2))
    planned(monkeypatch, 9)                     # the plan of the start counts, not that of a new measurement
    go(tmp_path/'time', minutes=60, resume=True)
    go(tmp_path/'epochs', epochs=3)
    assert 'resumed at epoch 2 of 3' in log(tmp_path/'time') and len(rows(tmp_path/'time')) == 3
    assert difference(tmp_path/'time/model.safetensors', tmp_path/'epochs/model.safetensors') == 0

def test_the_last_epoch_may_be_a_part_of_one(go, tmp_path, monkeypatch):
    "Of 2.5 epochs the third has half of the steps, and the cycle comes to its end in them"
    from ssd_fastai.all import Callback
    steps = []
    class Count(Callback):
        order = 80
        def after_step(self):
            if self.learn.recorder.n_epoch > 2: steps.append((self.epoch, self.n_iter, self.opt.hypers[-1]['lr']))   # not the timed ones
    planned(monkeypatch, 2.5)
    go(tmp_path/'part', minutes=60, cbs=Count())
    n = steps[0][1]
    assert len(rows(tmp_path/'part')) == 3 and len(steps) == round(2.5*n) and [o for o,*_ in steps].count(2) == round(2.5*n)-2*n
    assert max(lr for *_,lr in steps) > 1e-3 and steps[-1][2] < 1e-4
    assert '2.5 were planned' in log(tmp_path/'part')

def test_a_slow_machine_still_ends_in_time(go, tmp_path, monkeypatch):
    "By a clock of the test's own: from the second epoch a step takes 3 s more, and the cycle is shortened, to its end"
    from types import SimpleNamespace
    import ssd_fastai.runs as runs
    from ssd_fastai.all import Callback
    clock,rates = [0.],[]
    def tick(seconds=0.1):
        clock[0] += seconds
        return clock[0]
    monkeypatch.setattr(runs, 'time', SimpleNamespace(monotonic=tick))
    class Slow(Callback):
        def after_step(self):
            rates.append(self.opt.hypers[-1]['lr'])
            if self.epoch: tick(3)
    planned(monkeypatch, 20)
    go(tmp_path/'slow', minutes=2, cbs=Slow())
    said = log(tmp_path/'slow')
    assert 60 < clock[0] < 120 and 'epochs in this stage instead of 20' in said and 'of 2 minutes' in said, said
    assert 4 <= len(rows(tmp_path/'slow')) < 12
    assert max(rates) > 1e-3 and rates[-1] < 1e-4    # down to the end of the cycle

def test_best_then_resume(go, tmp_path):
    "An interrupted run ends early at the same epoch, and keeps the same one"
    kwargs = dict(epochs=30, patience=2, lr=1e-2)
    go(tmp_path/'whole', **kwargs)
    best = max(range(len(rows(tmp_path/'whole'))), key=lambda i: float(rows(tmp_path/'whole')[i].split(',')[6]))
    assert f'kept: epoch {best},' in log(tmp_path/'whole') and len(rows(tmp_path/'whole')) == best+3 < 30
    with pytest.raises(KeyboardInterrupt): go(tmp_path/'parts', cbs=stop_in(best+1), **kwargs)
    go(tmp_path/'parts', resume=True, **kwargs)
    assert difference(tmp_path/'whole/model.safetensors', tmp_path/'parts/model.safetensors') == 0
    assert len(rows(tmp_path/'parts')) == best+3

def test_a_finished_run_is_a_start(go, tmp_path):
    go(tmp_path/'a', epochs=1)
    model = tmp_path/'a/model.safetensors'
    go(tmp_path/'b', epochs=1, weights=model)
    assert 'from model.safetensors: body, head, 6 of 6 classes' in log(tmp_path/'b')
    assert go(tmp_path/'a', epochs=2, resume=True) is None
    assert f'for more epochs start another run from it: --weights {model}' in log(tmp_path/'a')
    assert {'detections.png','curves.png'} <= {o.name for o in (tmp_path/'a').iterdir()}

# --- what is printed

LINES = '''import sys
from functools import partial
from ssd_fastai.all import DetectionDataLoaders
from ssd_fastai.runs import train_run
loaders = partial(DetectionDataLoaders.from_voc, sys.argv[1], size=64, bs=7, num_workers=0)
train_run(loaders, 'test_resnet', sys.argv[2], epochs=2, weights='none', precision='float32')'''

def test_plain_lines_in_a_file_and_bars_on_a_terminal(shapes, tmp_path):
    "stdout has one row per epoch; a bar is on stderr, and only where that is a terminal"
    pty = pytest.importorskip('pty', reason='this system has no pseudo-terminals')
    import subprocess
    def said(out, stderr):
        argv = [sys.executable, '-W', 'ignore', '-c', LINES, str(shapes), str(tmp_path/out)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=stderr, cwd=ROOT,
                                env={**os.environ, 'OMP_NUM_THREADS':'1', 'MPLBACKEND':'Agg'})
    there,here = pty.openpty()
    both = said('file', subprocess.PIPE),said('terminal', here)
    os.close(here)
    shown = b''
    while True:
        try: shown += os.read(there, 4096)
        except OSError: break   # the process has ended
    outs = [o.communicate()[0].decode() for o in both]
    for o in outs:
        assert '\r' not in o and '\x1b' not in o, o
        assert sum(l.startswith(('0 ','1 ')) for l in o.splitlines()) == 2, o
    assert '█' in shown.decode(errors='replace')
    assert 'ssd-predict' in outs[0]
