"""Side by side: this project, torchvision's detectors and Ultralytics' YOLO, each trained for the same wall-clock time on this machine, measured by one
evaluator (`evaluate_detections`). Rows into benchmarks/results/accuracy.json as they finish, a table into benchmarks/results/accuracy.md.

    python benchmarks/accuracy.py                         # 5 minutes of training each on BCCD, NEU-DET, helmets and drawn shapes
    python benchmarks/accuracy.py --only resnet18 --data bccd --budget 900 --seeds 42,43,44
    python benchmarks/accuracy.py --compare               # differences between finished rows, by paired bootstrap over the test images
    PYTHONPATH=../old python benchmarks/accuracy.py --only lite0 --prefix before --size 320   # an earlier version of the package: "before-ours-lite0-imagenet"
    python benchmarks/accuracy.py --quick                 # does every system run? A few seconds each on 60 drawn images

Finished rows are skipped unless their settings were changed here (--again measures them anew). The time is that of training alone: imports, reading
and evaluation do not count, and nobody validates on the way. The test split is evaluated once, with the final weights.
"""
import argparse, json, os, subprocess, sys, sysconfig, time, traceback, venv
from functools import cache, partial
from pathlib import Path
from statistics import mean

from bccd import ROOT, SETS_AT, machine, write

WORK,RESULTS = ROOT/'runs'/'accuracy',ROOT/'benchmarks'/'results'
EVAL = dict(score=0.01, iou=0.5, max_per_image=200)
ULTRALYTICS = 'ultralytics==8.4.190'

# ------------------------------------------------------------------------------------------------ what is compared, and how each is set up
# Nothing is set for a data set: None is what `ssd-train` takes. A system's own entry for a data set goes before its general one.
DATA    = 'bccd','neu','helmet','shapes'
DEFAULT = dict(size=None, bs=None, lr=2e-3, augment='default', workers=None)
QUICK   = dict(size=64, bs=8, lr=2e-3, augment='flip', workers=0)

SSDLITE = dict(kind='torchvision', model='ssdlite320_mobilenet_v3_large', augment='ssdlite', size=320, bs=8, lr=2e-3, opt='adamw')
SGD     = dict(opt='sgd', lr=0.15*8/192)   # torchvision's reference for SSDlite, scaled from its batch of 192
YOLO    = dict(kind='yolo', size=416, bs=8, neu=dict(size=224), shapes=dict(size=192, bs=16), quick=dict(size=64))
SYSTEMS = {
    'ours-resnet18':       dict(kind='ours', arch='resnet18', weights='none'),
    'ours-resnet34':       dict(kind='ours', arch='resnet34', weights='none'),
    'ours-classic-head':      dict(kind='ours', arch='resnet34', weights='none', head='classic', size=224, quick=dict(size=128)),
    'ours-lite0-imagenet': dict(kind='ours', arch='tf_efficientnet_lite0', weights='imagenet'),
    'post-as-it-was':      dict(kind='post', arch='resnet34', weights='none', head='classic', encoding='tanh', precision='float32', optimiser='Adam',
                                size=224, quick=dict(size=128)),
    'tv-ssdlite320':       dict(SSDLITE, quick=dict(size=128)),
    'tv-ssdlite320-sgd':   {**SSDLITE, **SGD, 'quick':dict(size=128)},
    'yolo11n':             dict(YOLO, model='yolo11n.yaml'),
    'yolo26n':             dict(YOLO, model='yolo26n.yaml'),
    'tv-ssd300':           dict(kind='torchvision', model='ssd300_vgg16', augment='ssd', size=300, bs=8, lr=1e-3, opt='sgd', gpu=True,
                                quick=dict(bs=2)),
    'tv-retinanet':        dict(kind='torchvision', model='retinanet_resnet50_fpn_v2', augment='hflip', size=320, bs=8, lr=1e-4, opt='adamw', gpu=True,
                                quick=dict(size=64, bs=2)),
}

def chosen_size(train):
    "What `ssd-train` takes for these training records"
    from ssd_fastai.resize import input_size   # earlier versions have none: `--prefix before` needs `--size`
    return input_size([o.size for o in train])

def recipe_of(system, data, train, precision=None, size=None):
    "All settings of one system on one data set, of which `train` are the training records"
    own  = SYSTEMS[system]
    base = QUICK if data == 'quick' else DEFAULT
    res = {**(base if own['kind'] in ('ours', 'post') else {}), **own, **own.get(data, {})}
    res['size'] = size or res['size'] or chosen_size(train)
    if precision and own['kind'] == 'ours': res['precision'] = precision
    return {k:v for k,v in res.items() if k not in {*DATA, 'quick', 'gpu'}}

@cache
def splits_of(data):
    "Records of train, val and test"
    from ssd_fastai.readers import read_voc
    from ssd_fastai.synth import synth_voc
    real = SETS_AT/('bccd/BCCD' if data == 'bccd' else data)
    if data not in ('shapes', 'quick') and not real.is_dir(): raise ValueError(f'{real} is missing: set SSD_FASTAI_DATA to the folder that holds it')
    path = real if real.is_dir() else synth_voc(WORK/data, n=1400 if data == 'shapes' else 60, seed=42)
    return {o:read_voc(path, o, verbose=False) for o in ('train', 'val', 'test')}

# ------------------------------------------------------------------------------------------------ this project
def learner(splits, r):
    "What `ssd-train` trains: data, learner, precision, memory format"
    from fastai.vision.all import Adam, torch
    from torchvision.transforms.v2 import RandomHorizontalFlip
    from ssd_fastai.data import DetectionDataLoaders
    from ssd_fastai.runs import learner_for
    augment = [RandomHorizontalFlip()] if r['augment'] == 'flip' else r['augment']
    dls = DetectionDataLoaders.from_records(splits['train'], splits['val'], size=r['size'], bs=r['bs'], augment=augment, num_workers=r['workers'],
                                            path=WORK, verify=False)
    kwargs = {**{k:r[k] for k in ('head', 'encoding') if k in r}, **(dict(opt_func=Adam) if r.get('optimiser') == 'Adam' else {})}
    learn = learner_for(dls, r['arch'], r['weights'], wd=0.01, path=WORK, **kwargs)
    learn.unfreeze()
    if r['kind'] == 'post':
        from ladder import put_mistakes
        put_mistakes(learn, frozenset())
    if dls.device.type == 'cpu': learn.model.to(memory_format=torch.channels_last)   # for `--prefix`: earlier versions did not by themselves
    how = r.get('precision') or fastest(dls.device)
    return learn if how == 'float32' else getattr(learn, f'to_{how}')()

def clock(seconds):
    "A callback: no validation, images counted. With `seconds` the schedule follows the clock, and the training ends with it"
    from fastai.vision.all import Callback, CancelEpochException, CancelFitException
    class Clock(Callback):
        order,run_valid = 90,False
        start,images = None,0
        def before_fit(self): self.start = time.perf_counter()
        def before_train(self): self.follow()
        def after_batch(self):
            self.images += len(self.xb[0])
            self.follow()
            if seconds and self.past >= seconds: raise CancelFitException
        def follow(self):
            if seconds: self.learn.pct_train = min(1., self.past/seconds)
        def after_train(self): raise CancelEpochException
        @property
        def past(self): return time.perf_counter()-self.start
    return Clock()

def train(learn, r, epochs, c):
    "One cycle, everything at once, averaged weights, as `ssd-train` does; the post at one rate"
    from fastai.vision.all import defaults
    from ssd_fastai.callbacks import AverageWeights
    if r['kind'] == 'post': return learn.fit(epochs, defaults.lr, cbs=[AverageWeights(0), c])   # 0: no averaging
    learn.fit_one_cycle(epochs, r['lr'], cbs=[AverageWeights(), c])

def found_by(learn, records, r):
    "Detections of our detector; of the post, which hands out scores in its own way, an `Evaluation`"
    if r['kind'] == 'ours': return learn.detector().detect([o.file for o in records], **EVAL)
    from ladder import measure
    return measure(learn, records)['last']

def run_ours(splits, vocab, r, budget, seed, out):
    "Train for the time or so many epochs, evaluate; the model stays in `out`"
    from fastai.vision.all import set_seed
    from ssd_fastai.files import save_detector
    set_seed(seed, reproducible=True)
    learn,c = learner(splits, r),clock(budget.get('seconds'))
    with learn.no_bar(), learn.no_logging(): train(learn, r, budget.get('epochs', 10**6), c)
    log = dict(images=c.images, seconds=c.past, weights=learn.model.config['weights_from'])
    if r['kind'] == 'ours': save_detector(learn, out/'model.safetensors')
    return log, {o:found_by(learn, splits[o], r) for o in ('val', 'test')}

def run_kept(old, splits, vocab, r, budget, seed, out):
    "The same for a model that is in `out`, trained for the row `old`"
    from ssd_fastai.files import load_detector
    det = load_detector(out/'model.safetensors')
    return {k:old[k] for k in ('images', 'seconds', 'weights')}, {o:det.detect([x.file for x in splits[o]], **EVAL) for o in ('val', 'test')}

# ------------------------------------------------------------------------------------------------ the others
def measured(dets, records, vocab, system):
    "The one evaluator"
    from ssd_fastai.metrics import evaluate_detections
    from ssd_fastai.nms import Thresholds
    if hasattr(dets, 'rows'): return dets   # an `Evaluation` already
    return evaluate_detections(dets, records, vocab, Thresholds(**EVAL), source=system)

def fastest(device):
    "What `ssd-train` takes by itself"
    from ssd_fastai.detector import choose_precision
    return choose_precision('auto', device, training=True)

def has_bf16():
    "Is bfloat16 worth a try here? A peer then takes it if its own steps are faster so"
    import torch
    return fastest(torch.device('cuda' if torch.cuda.is_available() else 'cpu')) == 'bf16'

def run_torchvision(splits, vocab, r, budget, seed, out):
    import torch, peer_torchvision as tv
    torch.manual_seed(seed)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = tv.build(r['model'], len(vocab), r['size'], **EVAL)
    ds  = tv.Cache(splits['train'], vocab, tv.AUGMENT[r['augment']]())
    log = tv.train(model, ds, r['bs'], r['lr'], r['opt'], device=device, bf16=has_bf16(), **budget)
    return dict(log, weights='none'), {o:tv.found(model, splits[o], vocab, device) for o in ('val', 'test')}

def yolo_python():
    "A python with Ultralytics: an environment of its own that borrows torch and the rest from this one"
    home = ROOT/'runs'/'peers'
    exe  = home/'bin'/'python'
    if not (home/'complete').exists():
        print('making an environment for Ultralytics, once')
        venv.create(home, with_pip=True)
        site = subprocess.check_output([exe, '-c', 'import sysconfig; print(sysconfig.get_paths()["purelib"])'], text=True).strip()
        (Path(site)/'shared.pth').write_text(sysconfig.get_paths()['purelib']+'\n')
        pip = [exe, '-m', 'pip', 'install', '-q']
        subprocess.run([*pip, ULTRALYTICS], check=True)
        subprocess.run([*pip, '--force-reinstall', '--no-deps', 'opencv-python-headless'], check=True)   # the other needs a display's libraries
        (home/'complete').touch()
    return exe

def yolo_data(splits, vocab, out):
    "The records in YOLO's layout: linked images, a text file each, and data.yaml"
    for s,recs in splits.items():
        img,lab = out/'images'/s,out/'labels'/s
        for o in (img, lab): o.mkdir(parents=True, exist_ok=True)
        for r in recs:
            h,w = r.size
            rows = [(l-1, (x1+x2)/2/w, (y1+y2)/2/h, (x2-x1)/w, (y2-y1)/h)
                    for (x1,y1,x2,y2),l,d in zip(r.boxes.tolist(), r.labels(vocab).tolist(), r.difficult.tolist()) if not d]
            (lab/f'{r.file.stem}.txt').write_text(''.join('%d %.6f %.6f %.6f %.6f\n' % o for o in rows))
            if not (img/r.file.name).exists(): (img/r.file.name).symlink_to(r.file.resolve())
    names = '\n'.join(f'  {i}: {json.dumps(o)}' for i,o in enumerate(vocab[1:]))
    (out/'data.yaml').write_text(f'path: {out}\ntrain: images/train\nval: images/val\nnames:\n{names}\n')
    return out/'data.yaml'

def run_yolo(splits, vocab, r, budget, seed, out, python=None):
    from ssd_fastai.results import read_detections
    job = dict(bf16=has_bf16(), out=str(out), data=str(yolo_data(splits, vocab, out/'data')), names=vocab[1:], seed=seed,
               **{'seconds':None, 'epochs':None, **budget},
               files={o:[str(x.file) for x in splits[o]] for o in ('val', 'test')}, **{k:r[k] for k in ('model', 'size', 'bs')}, **EVAL)
    (out/'job.json').write_text(json.dumps(job))
    env = {**os.environ, 'YOLO_OFFLINE':'true', 'YOLO_CONFIG_DIR':str(WORK), 'PYTHONPATH':''}
    with open(out/'output.txt', 'w') as f:
        done = subprocess.run([python or yolo_python(), Path(__file__).with_name('peer_yolo.py'), out/'job.json'], cwd=out, env=env, stdout=f, stderr=f)
    if done.returncode: raise RuntimeError(f'YOLO ended with {done.returncode}: see {out}/output.txt')
    log = json.loads((out/'log.json').read_text())
    ids = {o:i for i,o in enumerate(vocab) if i}
    return dict(log, weights='none'), {o:read_detections(out/f'{o}.json', splits[o], vocab, ids) for o in ('val', 'test')}

RUNNERS = dict(ours=run_ours, post=run_ours, torchvision=run_torchvision, yolo=run_yolo)

# ------------------------------------------------------------------------------------------------ rows and table
def kept_at(system, data, budget, seed):
    "Where the detections on the test images are kept"
    return WORK/f'{system}-{data}-{words(budget).replace(" ", "")}-{seed}'/'found.json'

def keep(dets, file):
    "Write boxes, classes and scores of each image"
    if hasattr(dets, 'rows'): return
    write(file, json.dumps([[o.boxes.tolist(), o.labels.tolist(), o.scores.tolist()] for o in dets]))

def measure(name, r, data, splits, budget, seed, python, old=None):
    "One row, under this name, of a recipe; with `old`, a row, its model is not trained again"
    from ssd_fastai.readers import make_vocab
    kept,vocab = kept_at(name, data, budget, seed),make_vocab(splits['train'])
    out = kept.parent
    out.mkdir(parents=True, exist_ok=True)
    run = partial(run_kept, old) if old else partial(run_yolo, python=python) if r['kind'] == 'yolo' else RUNNERS[r['kind']]
    log,found = run(splits, vocab, r, budget, seed, out)
    keep(found['test'], kept)
    evs = {o:measured(d, splits[o], vocab, name) for o,d in found.items()}
    n,t = log['images'],log['seconds']
    log.update(passes=round(n/len(splits['train']), 1), seconds=round(t, 1), images_per_second=round(n/t, 1))
    figures = {o:dict(**{f:getattr(e, f) for f in ('voc12', 'coco', 'voc07')}, per_class={k:c['voc12'] for k,c in e.rows.items()}, counts=e.counts,
                      **({'interval':{f:e.interval(f) for f in ('voc12', 'coco')}} if hasattr(e, 'interval') else {}))
               for o,e in evs.items()}
    return dict(system=name, data=data, budget=budget, seed=seed, **log, **figures, recipe=r, protocol=evs['test'].protocol, machine=device())

def differences(rows):
    "Each system beside our best start, with the same seed, where the detections of both are kept: paired bootstrap over the test images"
    from ssd_fastai.analysis import compare
    from ssd_fastai.readers import make_vocab
    from ssd_fastai.records import Detections
    def kept(o): return kept_at(o['system'], o['data'], o['budget'], o['seed'])
    def evaluation(o):
        splits = splits_of(o['data'])
        vocab,test = make_vocab(splits['train']),splits['test']
        read = json.loads(kept(o).read_text())
        return measured([Detections(*d, vocab, r.size) for d,r in zip(read, test)], test, vocab, o['system'])
    groups = {}
    for o in rows: groups.setdefault((o['data'], words(o['budget']), o['seed']), []).append(o)
    for (data,budget,seed),here in groups.items():
        best = max((o for o in here if o['system'].startswith('ours')), key=lambda o: o['val']['coco'], default=None)
        if not best or not kept(best).exists(): continue
        a = evaluation(best)
        for o in here:
            if o is best or not kept(o).exists(): continue
            b = evaluation(o)
            for form in ('voc12', 'coco'):
                c = compare(b, a, form, allow=('source',))
                yield dict(data=data, budget=budget, seed=seed, ours=best['system'], other=o['system'], form=form, difference=c.difference,
                           interval=c.interval, wins=c.wins)

def is_current(d, rows):
    "Is this difference that of the figures in the rows? It is not if one of them was measured anew since, and its detections are gone"
    here = {o['system']:o['test'][d['form']] for o in rows if (o['data'], words(o['budget']), o['seed'])==(d['data'], d['budget'], d['seed'])}
    return {d['ours'], d['other']}<=here.keys() and abs(here[d['ours']]-here[d['other']]-d['difference'])<1e-6

def write_differences(rows, file):
    "Today's differences into `file`, where those stay whose detections are gone"
    def pair(o): return tuple(o[k] for k in ('data', 'budget', 'seed', 'other', 'form'))
    earlier = json.loads(file.read_text()) if file.exists() else []
    res = list({pair(o):o for o in [*earlier, *differences(rows)]}.values())
    write(file, json.dumps(res, indent=1)+'\n')
    old = sum(not is_current(o, rows) for o in res)
    if old: print(f'{old} of {len(res)} differences are of earlier trainings or evaluations than the rows: measure those with --again, then --compare')

def words(budget): return f"{budget['seconds']:g} s" if 'seconds' in budget else f"{budget['epochs']} passes"

def spread(group, split, form):
    "Mean over the seeds, from where to where if there are several, and half of the 95 % interval over images"
    xs   = [o[split][form] for o in group]
    half = [(b-a)/2 for o in group if 'interval' in o[split] for a,b in [o[split]['interval'][form]]]
    return f'{mean(xs):.3f}' + (f' ± {mean(half):.3f}' if half else '') + (f' ({min(xs):.3f}–{max(xs):.3f})' if len(xs) > 1 else '')

def side(s): return f'{s[0]}×{s[1]}' if isinstance(s, (list, tuple)) else str(s)

def table(rows):
    "Markdown: a table for each data set and budget, best first by COCO AP on val"
    text = ['# Side by side', '', 'Made by `python benchmarks/accuracy.py`; what each row means stands in `../README.md`. After ±: half of the 95 % bootstrap interval over',
            'the images of the split. In brackets: the lowest and highest of several seeds.', '']
    for key in dict.fromkeys((o['machine'], o['data'], words(o['budget'])) for o in rows):
        here = [o for o in rows if (o['machine'], o['data'], words(o['budget'])) == key]
        text += [f'## {key[1]}, {key[2]} of training, {key[0]}', '',
                 '| system | start | input | passes | images/s | AP50 val | COCO val | AP50 test | COCO test | seeds |', '|---'*10+'|']
        groups = [[o for o in here if o['system'] == s] for s in dict.fromkeys(o['system'] for o in here)]
        for g in sorted(groups, key=lambda g: -mean(o['val']['coco'] for o in g)):
            of = lambda k: [o[k] for o in g]
            start = 'random' if g[0]['weights'] == 'none' else 'ImageNet'
            text += [' | '.join([f"| {g[0]['system']}", start, side(g[0]['recipe']['size']), f"{mean(of('passes')):.0f}", f"{mean(of('images_per_second')):.0f}",
                                 *(spread(g, s, f) for s in ('val', 'test') for f in ('voc12', 'coco')), f'{len(g)} |'])]
        text += ['']
    return '\n'.join(text)

def key(o): return o['system'], o['data'], words(o['budget']), o['seed'], o['machine']

def finished(rows, here, recipe):
    "This row, if it is there and was measured with today's settings, or None"
    r = json.loads(json.dumps(recipe))
    return next((o for o in rows if key(o) == here and o['recipe'] == r), None)

def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', default='', help='systems by name, or those whose name contains one of these words; commas between')
    p.add_argument('--data', default=','.join(DATA), help=', '.join(DATA))
    p.add_argument('--budget', type=float, help='seconds of training; by default 300')
    p.add_argument('--compare', action='store_true', help='train nothing: write the differences between finished rows')
    p.add_argument('--prefix', default='', help='put before the names of the systems, for another version of the package')
    p.add_argument('--size', help='of the input, e.g. 416 or 320x416; by default what each system takes')
    p.add_argument('--precision', help='of ours: float32, bf16, fp16; by default what ssd-train takes by itself')
    p.add_argument('--passes', type=int, help='train for so many passes over the training set instead')
    p.add_argument('--seeds', default='42', help='e.g. 42,43,44')
    p.add_argument('--all', action='store_true', help='without a GPU as well: what needs one to be compared fairly')
    p.add_argument('--again', action='store_true', help='measure finished rows anew')
    p.add_argument('--kept', action='store_true', help='train nothing: evaluate the kept models of finished rows anew, after a change behind the network')
    p.add_argument('--quick', action='store_true', help='a few seconds each on 60 drawn images: does everything run? Figures mean nothing')
    p.add_argument('--yolo-python', help='a python that has Ultralytics; by default one is made in runs/peers')
    return p.parse_args()

def jobs(a):
    "Which rows are asked for"
    import torch
    fair   = a.all or a.quick or torch.cuda.is_available()
    chosen = [o for o,s in SYSTEMS.items() if any(w == o if w in SYSTEMS else w in o for w in a.only.split(',')) and (fair or not s.get('gpu'))]
    for data in (['quick'] if a.quick else a.data.split(',')):
        budget = dict(epochs=a.passes) if a.passes else dict(seconds=a.budget or (4 if a.quick else 300))
        for seed in map(int, a.seeds.split(',')):
            for s in chosen: yield s,data,budget,seed

def device():
    "What trains here, in words"
    import torch
    return torch.cuda.get_device_name() if torch.cuda.is_available() else machine()

def main(a):
    from ssd_fastai.cli import parse_size
    file,failed = (WORK if a.quick else RESULTS)/'accuracy.json',[]
    rows = json.loads(file.read_text()) if file.exists() and (a.compare or not a.quick) else []
    if a.compare: return write_differences(rows, file.with_name('differences.json'))
    for system,data,budget,seed in jobs(a):
        name = f'{a.prefix}-{system}'.lstrip('-')
        here,splits = (name, data, words(budget), seed, device()),splits_of(data)
        r = recipe_of(system, data, splits['train'], a.precision, parse_size(a.size))
        old = finished(rows, here, r)
        if a.kept and not (old and kept_at(name, data, budget, seed).with_name('model.safetensors').exists()): print('not kept:', *here); continue
        if old and not (a.again or a.kept): print('done before:', *here); continue
        try: row = measure(name, r, data, splits, budget, seed, a.yolo_python, old if a.kept else None)
        except Exception: traceback.print_exc(); failed.append(here); continue
        rows = [o for o in rows if key(o) != here] + [row]
        write(file, json.dumps(rows, indent=1)+'\n')
        print(*here[:4], f"{row['passes']} passes in {row['seconds']} s:",
              *(f"{s} AP50 {row[s]['voc12']:.3f} COCO {row[s]['coco']:.3f}" for s in ('val', 'test')), flush=True)
    write(file.with_suffix('.md'), table(rows))
    if failed: sys.exit('failed: ' + '; '.join(' '.join(map(str, o)) for o in failed))

if __name__ == '__main__': main(arguments())
