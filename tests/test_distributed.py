"Two processes on the CPU, as `torchrun` starts them: a dying one ends the run, what is written is right, each image counts once."
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip('accelerate', reason='several processes need accelerate: pip install ssd_fastai[distributed]')
import psutil

N,EPOCHS = 43,4   # images in all: 30 to train on and 7 to validate on, which two processes cannot share evenly

def torchrun(code, args, log, n=2):
    "Python code in `n` processes; what they say goes to `log`"
    cmd  = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node',str(n), '--no-python', sys.executable, '-c', code, *map(str, args)]
    return subprocess.Popen(cmd, cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS':'1'}, stdout=open(log, 'w'), stderr=subprocess.STDOUT)

TRAIN = 'from ssd_fastai.cli import ssd_train; ssd_train()'

def rank(p, r): return next(o for o in psutil.Process(p.pid).children(recursive=True) if o.environ().get('RANK') == str(r))

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A run whose second process is killed after the first epoch, and which is then gone on with: (folder of data, folder of the run, both logs)"
    from ssd_fastai.synth import synth_voc
    d = tmp_path_factory.mktemp('two')
    data,out,last = synth_voc(d/'shapes', n=N, seed=1),d/'run',d/'run/checkpoints/last.pt'
    args = [data, '--arch','test_resnet', '--size','64', '--bs','4', '--epochs',EPOCHS, '--weights','none', '--precision','float32',
            '--workers','0', '--out',out, '--resume']
    p,end = torchrun(TRAIN, args, d/'killed.log'),time.time()+240
    while not last.exists():
        assert p.poll() is None and time.time() < end, (d/'killed.log').read_text()[-2000:]
        time.sleep(0.01)
    rank(p, 1).kill()
    code = p.wait(timeout=60)   # it must not hang
    assert torchrun(TRAIN, args, d/'end.log').wait(timeout=240) == 0, (d/'end.log').read_text()[-2000:]
    return data, out, code, (d/'killed.log').read_text(), (d/'end.log').read_text()

def test_a_dying_process_ends_the_run(trained):
    *_,code,log,_ = trained
    assert code != 0
    assert 'another process of this run has ended' in log and 'Signal 9 (SIGKILL)' in log, log[-3000:]
    assert '--resume goes on from' in log

def test_sigterm_is_told(tmp_path):
    p = subprocess.Popen([sys.executable, '-c', 'import time; from ssd_fastai.cli import _heed_sigterm; _heed_sigterm("ssd-x", "go on"); print("on", flush=True); '
                          'time.sleep(60)'], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p.stdout.readline()
    p.terminate()
    assert p.stderr.read() == '\nssd-x: stopped by SIGTERM (by a scheduler); go on\n' and p.wait() == 143

def test_only_the_first_speaks(trained):
    *_,log = trained
    for o in ('resumed at epoch', 'epochs, 2 processes', 'stage 1 of 1'): assert log.count(o) == 1, (o, log)

def test_evaluation_is_that_of_the_written_weights(trained):
    from ssd_fastai.export import load_detector
    from ssd_fastai.readers import read_voc
    data,out,*_ = trained
    records,doc = read_voc(data, 'val'),json.loads((out/'evaluation.json').read_text())
    ev = load_detector(out/'model.safetensors').evaluate(records, progress=False)
    assert doc['counts']['images'] == len(records) == 7
    for k in ('voc07', 'voc12', 'coco'): assert abs(doc[k]-getattr(ev, k)) < 1e-6
    rows = [o.split(',') for o in (out/'history.csv').read_text().splitlines()]
    assert len(rows) == 1+EPOCHS
    assert abs(float(rows[-1][rows[0].index('map')]) - ev.voc12) < 1e-6   # gathered from both processes in the last epoch

def test_shares_come_together_once(tmp_path):
    code = 'from ssd_fastai.cli import my_share, to_first; all = to_first(my_share("abcde")); all is None or print(all)'
    assert torchrun(code, [], tmp_path/'log').wait(timeout=120) == 0
    assert [o for o in (tmp_path/'log').read_text().splitlines() if o.startswith('[')] == [str([(0,'a'),(2,'c'),(4,'e'),(1,'b'),(3,'d')])]

PREDICT = 'from ssd_fastai.cli import ssd_predict; ssd_predict()'

def test_files_are_shared_out_and_found_once(trained, tmp_path):
    "Two processes leave what one leaves: rows in the order of the files, an XML each, and the broken image named once"
    data,out,*_ = trained
    images = tmp_path/'images'
    shutil.copytree(data/'JPEGImages', images)
    (images/'broken.jpg').write_text('no image')
    args = lambda to: [out/'model.safetensors', images, '--threshold','0.01', '--json',to/'found.json', '--csv',to/'found.csv', '--voc',to/'xml']
    for n in (1, 2): assert torchrun(PREDICT, args(tmp_path/str(n)), tmp_path/f'log{n}', n=n).wait(timeout=240) != 0   # an image is broken
    one,two = ({str(o.relative_to(tmp_path/n)): o.read_text() for o in (tmp_path/n).rglob('*') if o.is_file()} for n in '12')
    assert one.keys() == two.keys() and len(one) == N+2
    a,b = json.loads(one['found.json']),json.loads(two['found.json'])
    assert len(a) == len(b) > N and [o['image_id'] for o in a] == [o['image_id'] for o in b]
    assert all(abs(x['score']-y['score']) < 1e-4 for x,y in zip(a, b))
    for n in '12': assert (tmp_path/f'log{n}').read_text().count('failed: ') == 1
