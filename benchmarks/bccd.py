"""The README's BCCD lines, run as they stand there: time of each, AP on the test split (once, with the final weights), and the picture.

    python benchmarks/bccd.py            # all lines, results into benchmarks/results/bccd.json, picture into images/bccd.jpg
    python benchmarks/bccd.py resnet18   # the lines that contain this word

BCCD is looked for in the folder named by SSD_FASTAI_DATA (default ../shared/data), as bccd/BCCD.
"""
import json, os, platform, re, shlex, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETS_AT = Path(os.environ.get('SSD_FASTAI_DATA', ROOT/'../shared/data')).resolve()
DATA = SETS_AT/'bccd'/'BCCD'
WORK,RESULTS = ROOT/'runs'/'readme',ROOT/'benchmarks'/'results'/'bccd.json'

def machine():
    "The processor, in words: how many cores, whose, and the widest instructions it has, which decide how fast it trains"
    info = Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else []
    line = lambda key: next((l.split(':')[1].strip() for l in info if l.startswith(key)), '')
    wide = next((name for flag,name in (('avx512_bf16','AVX-512 with bfloat16'), ('avx512f','AVX-512'), ('avx2','AVX2')) if flag in line('flags').split()), '')
    return f"{os.cpu_count()} cores of {line('model name') or platform.processor()}" + (f', {wide}' if wide else '')

def write(path, text):
    "A whole file or none"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix('.part').write_text(text)
    os.replace(path.with_suffix('.part'), path)

def readme_lines():
    "Lines of the README that train on BCCD"
    return [l for l in (ROOT/'README.md').read_text().splitlines() if l.startswith('ssd-train') and 'BCCD' in l]

def name_of(line):
    "The last part of what comes after `--out`"
    return re.search(r'--out \S*?([^/\s]+)(\s|$)', line)[1]

def run(args): subprocess.run(args, cwd=WORK, check=True)

def measure(line):
    "Train by `line`, evaluate on the test split"
    args = shlex.split(line)
    out  = args[args.index('--out')+1]
    if (WORK/out).exists(): subprocess.run(['rm', '-r', str(WORK/out)], check=True)
    start = time.time()
    run(args)
    seconds = time.time()-start
    return dict(line=line, seconds=round(seconds), **figures(out, args[1]), machine=machine())

def figures(out, data):
    "Of a finished run: AP on val, and on the test split, once"
    run(['ssd-eval', f'{out}/model.safetensors', data, '--split', 'test', '--json', f'{out}/test.json'])
    test,val = (json.loads((WORK/out/f).read_text()) for f in ('test.json', 'evaluation.json'))
    return dict(weights=val['weights'], val_voc12=val['voc12'], test_voc12=test['voc12'], test_coco=test['coco'], test_voc07=test['voc07'],
                per_class={k:o['voc12'] for k,o in test['per_class'].items()}, protocol=test['protocol'], counts=test['counts'])

def picture(out):
    "Ground truth and detections of four test images"
    from ssd_fastai.draw import show_pairs
    from ssd_fastai.files import load_detector
    from ssd_fastai.readers import read_voc
    some = read_voc(DATA, 'test', verbose=False)[3:40:12]
    dets = load_detector(out/'model.safetensors').detect([r.file for r in some])   # at its own threshold
    fig = show_pairs([(None, r, d) for r,d in zip(some, dets)], ncols=2)
    fig.savefig(ROOT/'images/bccd.jpg', dpi=90, bbox_inches='tight', pad_inches=0.03, pil_kwargs=dict(quality=80))

if __name__ == '__main__':
    words = sys.argv[1:]
    WORK.mkdir(parents=True, exist_ok=True)
    if not (WORK/'BCCD').exists(): (WORK/'BCCD').symlink_to(DATA)
    lines = {name_of(l):l for l in readme_lines()}
    done  = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    done  = {k:o for k,o in done.items() if o['line']==lines.get(k)}   # figures of other lines would mislead
    for name,line in lines.items():
        if words and not any(w in line for w in words): continue
        done[name] = measure(line)
        write(RESULTS, json.dumps(done, indent=1) + '\n')
        print(name, {k:done[name][k] for k in ('seconds', 'val_voc12', 'test_voc12', 'test_coco')})
    picture(next(WORK/'runs'/o for o in ('bccd-lite0','bccd-resnet18') if (WORK/'runs'/o).exists()))
