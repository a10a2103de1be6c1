"""`ssd-train`, killed again and again, resumed, and compared with a run that was left alone: benchmarks/results/survival.json.

    python benchmarks/survival.py [kills]

Each start is a command of its own. Kills come by turns at random moments of the start, of the training, and of the writing of a checkpoint.
"""
import json, os, random, re, signal, subprocess, sys, tempfile, time
from collections import Counter
from pathlib import Path

EPOCHS = 40
TRAIN  = ['--arch','test_resnet', '--size','64', '--bs','7', '--weights','none', '--precision','float32', '--workers','1']   # a body of kilobytes

def start(argv, log):
    "`ssd-train` as a command, in a session of its own"
    code = 'from ssd_fastai.cli import ssd_train; ssd_train()'
    return subprocess.Popen([sys.executable, '-c', code, *argv], stdout=open(log, 'w'), stderr=subprocess.STDOUT, start_new_session=True)

def wait_until(p, seen, what, limit=300):
    "Wait for `seen()`; False where process `p` ended before"
    end = time.time()+limit
    while not seen():
        if p.poll() is not None: return False
        if time.time() > end: raise TimeoutError(f'{what} was not seen in {limit} s')
        time.sleep(0.001)
    return True

def strike(p, out, log, kind, rng):
    "Kill `p` at a random moment; was it still at work?"
    text = lambda: log.read_text() if log.exists() else ''
    first = out/'checkpoints/last.pt'
    if not wait_until(p, lambda: first.exists(), 'a first checkpoint'): return False
    if kind != 'start' and not wait_until(p, lambda: re.search(r'^stage', text(), re.M), 'the training'): return False
    if kind == 'write' and not wait_until(p, lambda: any(out.rglob('*.part.*')), 'a half-written file'): return False
    if kind != 'write': time.sleep(rng.uniform(0, 12 if kind == 'start' else 2))
    if p.poll() is not None: return False
    os.kill(p.pid, signal.SIGKILL)
    return p.wait() == -signal.SIGKILL

def survive(start, argv, out, kills, kinds=('start','train','write'), seed=0):
    "Run to the end with `kills` kills after the first checkpoint: what was struck when, and what each start said"
    rng,hits,said,n = random.Random(seed),[],[],0
    while True:
        log = out.parent/f'{out.name}-{n}.log'
        p,n = start([*argv, '--out',str(out), '--resume'], log),n+1
        kind = kinds[len(hits) % len(kinds)] if len(hits) < kills else None
        if kind and strike(p, out, log, kind, rng): hits.append(kind)
        code = p.wait()
        said.append(re.findall(r'^(?:starting afresh|resumed at epoch \d+)', log.read_text(), re.M))
        if code == -signal.SIGKILL: continue
        if code: raise RuntimeError(f'ssd-train ended with {code}: {log.read_text()[-500:]}')
        return dict(kills=kills, hits=len(hits), kinds=dict(Counter(hits)), starts=n, said=[o[0] if o else 'killed before it spoke' for o in said])

def difference(a, b):
    "The largest difference between the weights of two model files"
    from safetensors.torch import load_file
    a,b = load_file(a),load_file(b)
    assert a.keys() == b.keys()
    return max((a[k].double()-b[k].double()).abs().max().item() for k in a)

if __name__ == '__main__':
    from bccd import ROOT, machine
    from ssd_fastai.synth import synth_voc
    kills,begin = int(sys.argv[1]) if len(sys.argv) > 1 else 24, time.time()
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        argv = [str(synth_voc(d/'shapes', n=40, seed=1)), *TRAIN, '--epochs',str(EPOCHS)]
        if code := start([*argv, '--out',str(d/'alone')], d/'alone.log').wait(): sys.exit((d/'alone.log').read_text())
        res = survive(start, argv, d/'struck', kills)
        res['weight difference to the run left alone'] = difference(*(d/o/'model.safetensors' for o in ('alone','struck')))
        res['same evaluation'] = (d/'alone/evaluation.json').read_text() == (d/'struck/evaluation.json').read_text()
    res.update(resumed=sum(o.startswith('resumed') for o in res['said']), epochs=EPOCHS, seconds=round(time.time()-begin), machine=machine())
    (ROOT/'benchmarks/results/survival.json').write_text(json.dumps(res, indent=1) + '\n')
    print({k:v for k,v in res.items() if k != 'said'})
