"""A hundred thousand inputs, sound and damaged, in one process: each gives a correct result or one line of `ValueError`.

    python benchmarks/fuzz.py                      # results into benchmarks/results/fuzz.json
    python benchmarks/fuzz.py --n 2000 --seed 1    # fewer, others
    python benchmarks/fuzz.py --kind "VOC XML" --n 1000

The inputs and what must hold for each stand in tests/strategies.py. A folder of 10,000 images, every tenth broken, and 40 command lines
as processes of their own are part of the whole check.
"""
import argparse, faulthandler, json, platform, subprocess, sys, tempfile, time, traceback
from importlib.metadata import version
from pathlib import Path

from bccd import ROOT, machine, write
sys.path.insert(0, str(ROOT/'tests'))
import torch
from hypothesis import seed, settings, given, HealthCheck
from hypothesis import strategies as st
from strategies import KINDS, Late, Room, check_crowd, command_lines, filled, try_out, verdict

torch.set_num_threads(1)

def run_kind(name, n, at, room, most=1000):
    "Check `n` inputs of a kind, in rounds; failures are collected"
    kind,t = KINDS[name],time.perf_counter()
    res = dict(inputs=0, correct=0, refused=0, failures=0, longest=0.)
    def tell(what, secs):
        res['inputs'] += 1; res[what] += 1
        res['longest'] = round(max(res['longest'], secs), 3)
    for i in range(1000):
        left = n-res['inputs']
        if left<=0 or res['failures']>2: break
        faulthandler.dump_traceback_later(900, exit=True)
        try: try_out(kind, min(left, most), room, at*1000+i, tell)
        except (Exception, Late):
            res['failures'] += 1
            print(f'--- {name}', traceback.format_exc(limit=-6)[-3500:], sep='\n', flush=True)
    faulthandler.cancel_dump_traceback_later()
    return {**res, 'seconds':round(time.perf_counter()-t, 1)}

def drawn(strategy, n, at):
    "`n` examples of a strategy"
    out = []
    @settings(max_examples=n, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @seed(at)
    @given(strategy)
    def one(x): out.append(x)
    one()
    return out[:n]

def run_processes(n, at, room):
    "Command lines as processes of their own"
    res,t = dict(inputs=0, correct=0, refused=0, failures=0, longest=0.),time.perf_counter()
    room.data()
    for f,args in drawn(command_lines(), n, at):
        args = [o for o in filled(f, args, room) if '\0' not in o]
        code = f'from ssd_fastai.cli import {f.__name__}; {f.__name__}()'
        start = time.perf_counter()
        try:
            p = subprocess.run([sys.executable, '-c', code, *args], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
            res[verdict(f.__name__.replace('_','-'), p.returncode, p.stdout, p.stderr)] += 1
        except Exception as e: res['failures'] += 1; print('---', f.__name__, args, e, flush=True)
        res['inputs'] += 1
        res['longest'] = round(max(res['longest'], time.perf_counter()-start), 3)
    return {**res, 'seconds':round(time.perf_counter()-t, 1)}

def main(n, at, only, crowd, processes):
    total = sum(o.share for o in KINDS.values())
    kinds,res = ([only] if only else [*KINDS]),{}
    with tempfile.TemporaryDirectory() as tmp:
        room = Room(Path(tmp)/'room')
        for k in kinds:
            res[k] = run_kind(k, n if only else max(3, round(n*KINDS[k].share/total)), at, room)
            print(f'{k:15}', res[k], flush=True)
        if processes: res['processes'] = run_processes(processes, at, room); print(f'{"processes":15}', res['processes'], flush=True)
        many = None
        if crowd:
            t = time.perf_counter()
            many = {**check_crowd(Path(tmp)/'crowd', crowd, room.model), 'seconds':round(time.perf_counter()-t, 1)}
            print(f'{"folder":15}', many, flush=True)
    every = {k: round(sum(o[k] for o in res.values()), 1) for k in ('inputs','correct','refused','failures','seconds')}
    versions = {o: version(o) for o in ('ssd_fastai','torch','pillow','numpy','pandas','hypothesis','defusedxml','safetensors')}
    return dict(command=f'python benchmarks/fuzz.py --n {n} --seed {at}', **every, longest=max(o['longest'] for o in res.values()), kinds=res, folder=many,
                python=platform.python_version(), versions=versions, machine=machine())

if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--n', type=int, default=100_000)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--kind', default=None, choices=[*KINDS], help='this kind alone, n of it')
    args = p.parse_args()
    whole = args.n>=100_000 and not args.kind
    res = main(args.n, args.seed, args.kind, 10_000 if whole else 0, 40 if whole else 0)
    print({k: v for k,v in res.items() if k!='kinds'})
    if whole: write(ROOT/'benchmarks'/'results'/'fuzz.json', json.dumps(res, indent=1)+'\n')
    sys.exit(1 if res['failures'] else 0)
