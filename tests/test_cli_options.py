"Every option of every script: it changes something or is refused; and every numeric option with numbers that are none."
import contextlib, inspect, io, itertools, json, random, shutil
from configparser import ConfigParser
from pathlib import Path
import pytest
import ssd_fastai.cli as cli, ssd_fastai.data as data_room, ssd_fastai.onnx as onnx_room, ssd_fastai.runs as runs
from ssd_fastai.nms import Thresholds
from ssd_fastai.results import ImageIndex
from ssd_fastai.synth import synth_voc

ROOT  = Path(__file__).resolve().parent.parent
MODEL = ROOT/'tests/golden/detector.safetensors'

def scripts():
    "The functions behind the console scripts of settings.ini"
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    lines = [o.split('=')[1].split(':')[1] for o in cfg['DEFAULT']['console_scripts'].splitlines() if o.strip()]
    return [getattr(cli, o) for o in lines]

def options(f): return {k:p for k,p in inspect.signature(f).parameters.items() if p.default is not p.empty and k not in ('model','data')}

def numeric():
    "(script, option) of every option that takes a number"
    found = [(f, k) for f in scripts() for k,p in options(f).items() if p.annotation in (int,float)]
    return found + [(f, 'size') for f in scripts() if 'size' in options(f)]

@pytest.fixture(scope='module')
def room(tmp_path_factory):
    path = tmp_path_factory.mktemp('options')
    synth_voc(path/'shapes', n=30, seed=1, n_classes=3)
    recs = cli_records(path)
    names = sorted({n for o in recs for n in o.names})
    (path/'ids.json').write_text(json.dumps(dict(annotations=[], categories=[dict(id=i, name=n) for i,n in enumerate(load_vocab(), 7)],
        images=[dict(id=9-i, file_name=o.file.name, height=o.size[0], width=o.size[1]) for i,o in enumerate(recs)])))
    (path/'one').mkdir()
    shutil.copy(recs[0].file, path/'one')
    (path/'found.json').write_text('[]')
    return path

def load_vocab():
    from ssd_fastai.files import load_detector
    return load_detector(MODEL).vocab[1:]

def cli_records(path):
    from ssd_fastai.readers import read_split
    return read_split(path/'shapes', 'test')

def started(monkeypatch):
    "What a training is started with, in place of the training"
    seen = {}
    def from_records(train, valid, **kwargs):
        kwargs['bs'] = data_room.batch_size(kwargs['bs'], len(train), 'cpu')
        seen.update(loaders=kwargs, train=[o.file for o in train], valid=[o.file for o in valid])
    def train_run(make_dls, arch, out, **kwargs):
        if 'frozen' in kwargs: runs.plan_stages(kwargs['epochs'], kwargs['lr'], kwargs['frozen'])
        make_dls()
        seen.update(arch=arch, out=Path(out).name, run={k:v for k,v in kwargs.items() if k!='records'})
    monkeypatch.setattr(data_room.DetectionDataLoaders, 'from_records', from_records)
    monkeypatch.setattr(runs, 'train_run', train_run)
    monkeypatch.setattr(cli, '_demo_pictures', lambda *_: None)
    monkeypatch.setattr(onnx_room, 'export_onnx', lambda det, file, **kwargs: seen.update(file=Path(file).name, **kwargs) or file)
    return seen

def run(f, args, seen, out):
    "(exit code, what a script said, did and wrote)"
    seen.clear()
    said,err,code = io.StringIO(),io.StringIO(),0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(err):
        try: f([str(o) for o in args])
        except SystemExit as e: code = e.code or 0
    wrote = {str(o.relative_to(out)): o.read_bytes() for o in sorted(out.rglob('*')) if o.is_file() and 'data' not in o.parts} if out.is_dir() else {}
    shutil.rmtree(out, ignore_errors=True)
    return code, err.getvalue(), (said.getvalue().replace(str(out), 'OUT'), repr(seen), wrote)

def base(f, room, out):
    "A command line that works"
    name = f.__name__
    if name=='ssd_check':   return [room/'shapes', '--json', out/'c.json']
    if name=='ssd_train':   return [room/'shapes', '--out', out, '--weights', 'none', '--workers', 0]
    if name=='ssd_eval':    return [MODEL, room/'shapes', '--json', out/'e.json']
    if name=='ssd_predict': return [MODEL, room/'one', '--score', '0.01', '--json', out/'p.json']
    if name=='ssd_export':  return [MODEL, '--onnx', out/'m.onnx']
    return ['--out', out, '--n', 30]

OTHER = { # another value of each option; None: a flag
    'train':'val', 'valid':'test', 'test':'test', 'split':'val', 'size':'96', 'json':'@other.json', 'draw':'@drawn.png', 'csv':'@t.csv', 'voc':'@xml',
    'arch':'resnet18', 'bs':3, 'epochs':2, 'frozen':1, 'lr':1e-4, 'seed':7, 'out':'@../elsewhere', 'resume':None, 'weights':'imagenet', 'head':'classic',
    'precision':'float32', 'method':'pad', 'workers':1, 'skip_broken':None, 'score':0.3, 'iou':0.9, 'max_per_class':1, 'max_per_image':1,
    'coco':'ids.json', 'detections':'found.json', 'onnx':'@other.onnx', 'suppress':None, 'images':'one', 'n':32}

def value(v, room, out):
    if not isinstance(v, str): return v
    return (out/v[1:]).resolve() if v.startswith('@') else room/v if (room/v).exists() else v

@pytest.mark.parametrize('f,k', [(f, k) for f in scripts() for k in options(f)], ids=lambda o: getattr(o, '__name__', o))
def test_every_option_changes_something_or_is_refused(f, k, room, tmp_path, monkeypatch):
    assert k in OTHER, f'{f.__name__} has an option {k} that no test knows: give it another value in OTHER'
    seen,out = started(monkeypatch),tmp_path/'out'
    if k=='skip_broken': # seen where an image is broken
        shutil.copytree(room/'shapes', tmp_path/'shapes')
        first = next(iter((tmp_path/'shapes/ImageSets/Main/train.txt').read_text().split()))
        pic = next((tmp_path/'shapes/JPEGImages').glob(f'{first}.*'))
        pic.write_bytes(pic.read_bytes()[:-20])
        room = tmp_path
    args  = base(f, room, out)
    plain = run(f, args, seen, out)
    flag  = '--'+k.replace('_', '-')
    more  = [flag] if OTHER[k] is None else [flag, value(OTHER[k], room, out)]
    code,err,new = run(f, [*args, *more], seen, out)
    if code==2: assert len(err.strip().splitlines())==1 and f'{f.__name__.replace("_","-")}: error: ' in err, err
    else: assert plain[0] in (0, 1) or k=='skip_broken', plain
    assert (code, new)!=(plain[0], plain[2]), f'{flag} changes nothing, and nothing says so'

ODD = ['nan','inf','-inf','0','-1','1.5','x','','1e400','99999999999999999999']
@pytest.mark.parametrize('f,k', numeric(), ids=lambda o: getattr(o, '__name__', o))
def test_every_number_is_refused_in_a_line_or_has_a_meaning(f, k, room, tmp_path, monkeypatch):
    seen,out = started(monkeypatch),tmp_path/'out'
    flag = '--'+k.replace('_', '-')
    for v in ODD:
        code,err,(_,did,wrote) = run(f, [*base(f, room, out), f'{flag}={v}'], seen, out)
        assert code in (0, 1, 2), f'{flag} {v}: {code} {err[-300:]}'
        if code==2:
            assert len(err.strip().splitlines())==1 and f'error: {flag} ' in err, f'{flag} {v}: {err[-300:]}'
            assert did=='{}' and not wrote, f'{flag} {v}: {did}'
        else: assert MEANT.get((k, v)), f'{f.__name__} {flag} {v} was accepted'

MEANT = {(k, v): True for k,v in itertools.chain(itertools.product(['score','iou'], ['0']), itertools.product(['seed','frozen','workers'], ['0']),
         itertools.product(['lr'], ['1.5','99999999999999999999']))}

@pytest.mark.parametrize('f', scripts(), ids=lambda o: o.__name__)
def test_underscores_and_unknown_options(f, room, tmp_path, monkeypatch):
    "`--max_per_class` is `--max-per-class`; what is no option is refused in a line"
    seen,out = started(monkeypatch),tmp_path/'out'
    for k in (o for o in options(f) if '_' in o and OTHER[o] is not None):
        one,two = (run(f, [*base(f, room, out), f'--{o}', OTHER[k]], seen, out) for o in (k, k.replace('_','-')))
        assert one==two
    code,_err,_ = run(f, [*base(f, room, out), '--nonsense', '1'], seen, out)
    assert code==2 and len(_err.strip().splitlines())==1 and '--nonsense: no such argument' in _err

# --- whose image a row is

NAMES = { # how the files of a split may be called
    'shifted':    ['2.jpg','3.jpg','4.jpg','1.jpg'],        # numbers that are the ids of others
    'from zero':  ['0.jpg','1.jpg','2.jpg','3.jpg'],
    'folders':    ['seq1/f.jpg','seq2/f.jpg','f1/g.jpg','f2/g.jpg'],
    'endings':    ['a.jpg','a.png','b.jpg','b.png'],
    'plain':      ['x.jpg','y.jpg','sub/z.jpg','w.v.jpg']}

@pytest.mark.parametrize('keys', ['id','name','both','mixed'])
@pytest.mark.parametrize('kind', NAMES)
def test_perfect_results_are_perfect_however_they_name_their_images(kind, keys, tmp_path):
    "COCO's ids, paths, or both, row by row; no image is there"
    names,rng = NAMES[kind],random.Random(kind+keys)
    boxes = {i: [5*i, 3*i, 20+i, 30] for i in range(1, len(names)+1)}
    images = [dict(id=i, file_name=n, width=80, height=60) for i,n in enumerate(names, 1)]
    anns   = [dict(id=i, image_id=i, category_id=1, bbox=b, iscrowd=0) for i,b in boxes.items()]
    (tmp_path/'val.json').write_text(json.dumps(dict(images=images, annotations=anns, categories=[dict(id=1, name='cat')])))
    def row(i):
        how = rng.choice(['id','name','both','absolute']) if keys=='mixed' else keys
        name = str(tmp_path/names[i-1]) if how=='absolute' else names[i-1]
        return {**({} if how in ('name','absolute') else dict(image_id=i)), **({} if how=='id' else dict(file_name=name))}
    (tmp_path/'r.json').write_text(json.dumps([dict(row(i), category_id=1, bbox=b, score=.9) for i,b in boxes.items()]))
    with contextlib.redirect_stdout(io.StringIO()):
        cli.ssd_eval(['--detections', str(tmp_path/'r.json'), str(tmp_path), '--split', 'val.json', '--json', str(tmp_path/'e.json')])
    assert json.loads((tmp_path/'e.json').read_text())['coco']==1.0

def test_a_row_is_never_taken_for_another_image():
    "Whatever a row says, it means the image that it was written for, or it is refused"
    rng = random.Random(0)
    for _ in range(2000):
        names = rng.sample(['1.jpg','2.jpg','3.jpg','a.jpg','a.png','s/a.jpg','t/a.jpg','s/1.jpg','1.png','b'], 5)
        index = ImageIndex(names, rng.sample(range(1, 8), 5))
        i = rng.randrange(5)
        row = {k: v for k,v in (('file_name', rng.choice([names[i], None, './'+names[i]])), ('image_id', rng.choice([index.ids[i], None]))) if v is not None}
        if row: assert index.place(row)[0]==i, (names, index.ids, row)
        j = rng.choice([o for o in range(5) if o!=i])
        with pytest.raises(ValueError) as e: index.place(dict(file_name=names[i], image_id=index.ids[j]))
        assert names[i] in str(e.value) and str(index.ids[j]) in str(e.value)
