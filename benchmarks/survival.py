"""`ssd-train`, killed again and again, resumed, compared with a run that was left alone: results/survival.json.

    python benchmarks/survival.py [kills]

Each start is a process of its own, forked from one that has done the imports. Kills come at random moments, in turn
during the start, during training, and while a checkpoint is written.
"""
import json, os, random, re, signal, subprocess, sys, tempfile, time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

EPOCHS = 60
TRAIN  = ['--arch','test_resnet', '--size','64', '--bs','7', '--precision','float32', '--workers','1']   # a tiny body

def prepare(d, epochs):
    "Write data and a body's weights into `d`; return the arguments of a run with two stages: the first is frozen"
    import timm, torch
    from ssd_fastai.synth import synth_voc
    torch.save(timm.create_model('test_resnet').state_dict(), d/'body.pth')
    data   = synth_voc(d/'shapes', n=40, seed=1)
    stages = ['--epochs',str(epochs), '--frozen',str(max(1, epochs//6))]
    return [str(data), *TRAIN, '--weights',str(d/'body.pth'), *stages]

# one process does the imports, which take seconds, and forks a child for every command
NURSERY = '''
import json, os, resource, signal, sys, traceback
import timm, ssd_fastai.runs
from ssd_fastai.cli import ssd_train
for line in sys.stdin:
    job = json.loads(line)
    if 'wait' in job: print(os.waitstatus_to_exitcode(os.waitpid(job['wait'], 0)[1]), flush=True)
    elif pid := os.fork(): print(pid, flush=True)
    else:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell's background job ignores it
        for o in (1,2): os.dup2(os.open(job['log'], os.O_WRONLY|os.O_CREAT|os.O_APPEND), o)
        if job['limit']: resource.setrlimit(resource.RLIMIT_FSIZE, (job['limit'],)*2)
        try: code = ssd_train(job['argv']) or 0
        except SystemExit as e: code = e.code or 0
        except BaseException: code = traceback.print_exc() or 1
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)
'''

class Child:
    "A forked `ssd-train`, with the methods of `subprocess.Popen` that are used here"
    def __init__(self, ask, pid): self.ask,self.pid,self.code = ask,pid,None
    def poll(self):
        if self.code is None:
            state = Path(f'/proc/{self.pid}/stat').read_text().rpartition(')')[2].split()[0]
            if state == 'Z': self.wait()   # it has ended
        return self.code
    def wait(self):
        if self.code is None: self.code = self.ask(wait=self.pid)
        return self.code

@contextmanager
def nursery():
    """A function that starts `ssd-train` as a `Child`; it takes the arguments, the file for what is printed, and the
    maximum size of the files that are written, in bytes (0: no limit)"""
    p = subprocess.Popen([sys.executable, '-c', NURSERY], env={**os.environ, 'OMP_NUM_THREADS':'1'},
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    def ask(**job):
        print(json.dumps(job), file=p.stdin, flush=True)
        return int(p.stdout.readline())
    try: yield lambda argv, log, limit=0: Child(ask, ask(argv=argv, log=str(log), limit=limit))
    finally:
        p.stdin.close()
        p.wait()

def wait_until(p, seen, what, limit=300):
    "Wait for `seen()`; False where process `p` ended before"
    end = time.time()+limit
    while not seen():
        if p.poll() is not None: return False
        if time.time() > end: raise TimeoutError(f'{what} was not seen in {limit} s')
        time.sleep(0.001)
    return True

def strike(p, out, log, kind, rng):
    "Kill `p` at a random moment of the given kind; False if it ended before"
    text = lambda: log.read_text() if log.exists() else ''
    first = out/'checkpoints/last.pt'
    if not wait_until(p, lambda: first.exists(), 'a first checkpoint'): return False
    for _ in range(0 if kind == 'start' else rng.randrange(3)):   # a few epochs later
        before = first.stat().st_mtime_ns
        if not wait_until(p, lambda: first.stat().st_mtime_ns != before, 'another checkpoint'): return False
    if kind != 'start' and not wait_until(p, lambda: re.search(r'^stage', text(), re.M), 'the training'): return False
    if kind == 'write' and not wait_until(p, lambda: any(out.rglob('*.part')), 'a half-written file'): return False
    if kind != 'write': time.sleep(rng.uniform(0, 1))
    if p.poll() is not None: return False
    os.kill(p.pid, signal.SIGKILL)
    return p.wait() == -signal.SIGKILL

def survive(start, argv, out, kills, kinds=('start','train','write'), seed=0):
    "Train to the end, killing the run `kills` times after its first checkpoint; what was hit, and what each start said"
    rng,hits,said,n = random.Random(seed),[],[],0
    while True:
        log = out.parent/f'{out.name}-{n}.log'
        p,n = start([*argv, '--out',str(out), '--resume'], log),n+1
        kind = kinds[len(hits) % len(kinds)] if len(hits) < kills else None
        struck = kind and strike(p, out, log, kind, rng)
        code,spoke = p.wait(),re.findall(r'^(?:starting afresh|resumed at epoch \d+)', log.read_text(), re.M)
        if struck and spoke: hits.append(kind)   # a kill before it printed anything shows nothing, and is not counted
        said.append(spoke[0] if spoke else 'killed before it spoke')
        if code == -signal.SIGKILL: continue
        if code: raise RuntimeError(f'ssd-train ended with {code}: {log.read_text()[-500:]}')
        return dict(kills=kills, hits=len(hits), kinds=dict(Counter(hits)), starts=n, said=said)

def difference(a, b):
    "Largest absolute difference between the weights of two model files"
    from safetensors.torch import load_file
    a,b = load_file(a),load_file(b)
    assert a.keys() == b.keys()
    return max((a[k].double()-b[k].double()).abs().max().item() for k in a)

if __name__ == '__main__':
    from bccd import ROOT, machine
    kills,begin = int(sys.argv[1]) if len(sys.argv) > 1 else 24, time.time()
    with tempfile.TemporaryDirectory() as d, nursery() as start:
        d = Path(d)
        argv = prepare(d, EPOCHS)
        if code := start([*argv, '--out',str(d/'alone')], d/'alone.log').wait(): sys.exit((d/'alone.log').read_text())
        res = survive(start, argv, d/'struck', kills)
        models = [d/o/'model.safetensors' for o in ('alone','struck')]
        res['weight difference to the run left alone'] = difference(*models)
        figures = [(d/o/'evaluation.json').read_text() for o in ('alone','struck')]
        res['same evaluation'] = figures[0] == figures[1]
    res.update(resumed=sum(o.startswith('resumed') for o in res['said']), epochs=EPOCHS,
               seconds=round(time.time()-begin), machine=machine())
    (ROOT/'benchmarks/results/survival.json').write_text(json.dumps(res, indent=1) + '\n')
    print({k:v for k,v in res.items() if k != 'said'})
