"Two processes on the CPU, started by `torchrun`: one that dies ends the run, and each image counts once."
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip('accelerate', reason='several processes need accelerate: pip install accelerate')
import psutil

N,EPOCHS = 43,4   # images in all: 30 to train on and 7 to validate on, which two processes cannot share evenly

def torchrun(code, args, log, n=2):
    "Run Python code in `n` processes; what they print goes to `log`"
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node',str(n), '--no-python']
    return subprocess.Popen([*launch, sys.executable, '-c', code, *map(str, args)], cwd=ROOT,
                            env={**os.environ, 'OMP_NUM_THREADS':'1'}, stdout=open(log, 'w'), stderr=subprocess.STDOUT)

TRAIN = 'from ssd_fastai.cli import ssd_train; ssd_train()'

def process_of(p, rank):
    "The process of this rank among the children of the launcher `p`"
    return next(o for o in psutil.Process(p.pid).children(recursive=True) if o.environ().get('RANK') == str(rank))

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run of which rank 1 is killed after the first epoch, and which is then resumed: (folder of the data, folder of
    the run, exit code and log of the killed run, log of the second)"""
    from ssd_fastai.synth import synth_voc
    d = tmp_path_factory.mktemp('two')
    data,out,last = synth_voc(d/'shapes', n=N, seed=1),d/'run',d/'run/checkpoints/last.pt'
    args = [data, '--arch','test_resnet', '--size','64', '--bs','4', '--epochs',EPOCHS, '--weights','none',
            '--precision','float32', '--workers','0', '--out',out, '--resume']
    p,end = torchrun(TRAIN, args, d/'killed.log'),time.time()+240
    while not last.exists():
        assert p.poll() is None and time.time() < end, (d/'killed.log').read_text()[-2000:]
        time.sleep(0.01)
    process_of(p, 1).kill()
    code = p.wait(timeout=60)   # it must not hang
    assert torchrun(TRAIN, args, d/'end.log').wait(timeout=240) == 0, (d/'end.log').read_text()[-2000:]
    return data, out, code, (d/'killed.log').read_text(), (d/'end.log').read_text()

def test_a_dying_process_ends_the_run(trained):
    *_,code,log,_ = trained
    assert code != 0
    assert 'another process of this run has ended' in log and 'Signal 9 (SIGKILL)' in log, log[-3000:]
    assert '--resume goes on from' in log

BUSY = """import time
from ssd_fastai.processes import exit_on_sigterm
exit_on_sigterm('ssd-x', 'go on')
print('on', flush=True)
time.sleep(60)"""

def test_sigterm_is_one_line():
    pipe = subprocess.PIPE
    p = subprocess.Popen([sys.executable, '-c', BUSY], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    p.stdout.readline()
    p.terminate()
    assert p.stderr.read() == '\nssd-x: stopped by SIGTERM (by a scheduler); go on\n' and p.wait() == 143

def test_only_rank_0_prints(trained):
    *_,log = trained
    for o in ('resumed at epoch', 'epochs, 2 processes', 'stage 1 of 1'): assert log.count(o) == 1, (o, log)

def test_evaluation_is_that_of_the_written_weights(trained):
    from ssd_fastai.files import load_detector
    from ssd_fastai.readers import read_voc
    data,out,*_ = trained
    records,doc = read_voc(data, 'val'),json.loads((out/'evaluation.json').read_text())
    ev = load_detector(out/'model.safetensors').evaluate(records, progress=False)
    assert doc['counts']['images'] == len(records) == 7
    for k in ('voc07', 'voc12', 'coco'): assert abs(doc[k]-getattr(ev, k)) < 1e-6
    rows = [o.split(',') for o in (out/'history.csv').read_text().splitlines()]
    assert len(rows) == 1+EPOCHS
    assert abs(float(rows[-1][rows[0].index('map')]) - ev.voc12) < 1e-6   # of both processes

GATHER = '''from ssd_fastai.processes import gather_to_rank0, my_share
found = gather_to_rank0(my_share("abcde"))
if found is not None: print(found)'''

def test_each_item_is_gathered_once(tmp_path):
    assert torchrun(GATHER, [], tmp_path/'log').wait(timeout=120) == 0
    lines = [o for o in (tmp_path/'log').read_text().splitlines() if o.startswith('[')]
    assert lines == [str([(0,'a'),(2,'c'),(4,'e'),(1,'b'),(3,'d')])]

PREDICT = 'from ssd_fastai.cli import ssd_predict; ssd_predict()'

def test_each_file_is_predicted_once(trained, tmp_path):
    "Two processes write what one writes: rows in the order of the files, an XML per image, the broken image named once"
    data,out,*_ = trained
    images = tmp_path/'images'
    shutil.copytree(data/'JPEGImages', images)
    (images/'broken.jpg').write_text('no image')
    for n in '12':
        to   = tmp_path/n
        args = [out/'model.safetensors', images, '--score','0.01',
                '--json',to/'found.json', '--csv',to/'found.csv', '--voc',to/'xml']
        assert torchrun(PREDICT, args, tmp_path/f'log{n}', n=int(n)).wait(timeout=240) != 0   # an image is broken
    one,two = ({str(o.relative_to(tmp_path/n)): o.read_text() for o in (tmp_path/n).rglob('*') if o.is_file()}
               for n in '12')
    assert one.keys() == two.keys() and len(one) == N+2
    a,b = json.loads(one['found.json']),json.loads(two['found.json'])
    assert len(a) == len(b) > N and [o['file_name'] for o in a] == [o['file_name'] for o in b]
    assert all(abs(x['score']-y['score']) < 1e-4 for x,y in zip(a, b))
    for n in '12': assert (tmp_path/f'log{n}').read_text().count('failed: ') == 1
