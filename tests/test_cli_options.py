"Every option of every script: it changes something or is refused; and every numeric option with numbers that are none."
import contextlib, inspect, io, itertools, json, os, random, re, shutil, subprocess, sys
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
    "The functions behind the console scripts of settings.ini that this module has (the page's is tested in test_app)"
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    lines = [o.split('=')[1].strip().split(':') for o in cfg['DEFAULT']['console_scripts'].splitlines() if o.strip()]
    return [getattr(cli, f) for room,f in lines if room=='ssd_fastai.cli']

def options(f): return {k:p for k,p in inspect.signature(f).parameters.items() if p.default is not p.empty and k not in ('model','data','on')}

def numeric():
    "(script, option) of every option that takes a number"
    found = [(f, k) for f in scripts() for k,p in options(f).items() if p.annotation in (int,float)]
    return found + [(f, k) for f in scripts() for k in ('size','tile','valid') if k in options(f)]

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
        if kwargs.get('epochs') and 'frozen' in kwargs: runs.plan_stages(kwargs['epochs'], kwargs['lr'] or 2e-3, kwargs['frozen'])
        make_dls()
        seen.update(arch=arch, out=Path(out).name, run={k:v for k,v in kwargs.items() if k!='records'})
    monkeypatch.setattr(data_room.DetectionDataLoaders, 'from_records', from_records)
    monkeypatch.setattr(runs, 'train_run', train_run)
    monkeypatch.setattr(cli, '_demo_pictures', lambda *_: None)
    monkeypatch.setattr(cli, '_write_lists', lambda *_: None)
    monkeypatch.setattr(onnx_room, 'export_onnx', lambda det, file, **kwargs: seen.update(file=Path(file).name, **kwargs) or file)
    return seen

TIME = re.compile(r' in [\d.]+ s \([\d.]+ images per second\)')

def run(f, args, seen, out):
    "(exit code, what a script said, did and wrote)"
    seen.clear()
    said,err,code = io.StringIO(),io.StringIO(),0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(err):
        try: f([str(o) for o in args])
        except SystemExit as e: code = e.code or 0
    wrote = {str(o.relative_to(out)): o.read_bytes() for o in sorted(out.rglob('*')) if o.is_file() and 'data' not in o.parts} if out.is_dir() else {}
    shutil.rmtree(out, ignore_errors=True)
    return code, TIME.sub('', err.getvalue()), (said.getvalue().replace(str(out), 'OUT'), repr(seen), wrote)

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
    'precision':'bf16', 'cache':'none', 'method':'pad', 'workers':1, 'skip_broken':None, 'score':0.3, 'iou':0.9, 'max_per_class':1, 'max_per_image':1,
    'coco':'ids.json', 'detections':'found.json', 'onnx':'@other.onnx', 'suppress':None, 'images':'one', 'n':32,
    'minutes':5, 'keep':'best', 'patience':3, 'log':'tensorboard', 'group':'(.)[.]', 'classes':'circle', 'rescale':None, 'tile':'64', 'tile_overlap':0.5,
    'yolo':'@yolo', 'labelme':'@labelme', 'video':'@film.mp4',
    'int8':None, 'max_loss':0.5}
WITH = {'group':['--valid','0.3'], 'tile_overlap':['--tile','48']} # what an option belongs to: without it it is refused, with it it counts

def value(v, room, out):
    if not isinstance(v, str): return v
    return (out/v[1:]).resolve() if v.startswith('@') else room/v if (room/v).exists() else v

def broken(path):
    "One image of each split lacks its last bytes"
    for split in ('train','val','test'):
        first = next(iter((path/f'ImageSets/Main/{split}.txt').read_text().split()))
        pic = next((path/'JPEGImages').glob(f'{first}.*'))
        pic.write_bytes(pic.read_bytes()[:-20])

def resized(path):
    "Every annotation states twice the size of its image, with boxes to match"
    for o in (path/'Annotations').glob('*.xml'):
        o.write_text(re.sub(r'<(width|height|[xy]m..)>([\d.]+)<', lambda m: f'<{m[1]}>{2*float(m[2]):g}<', o.read_text()))

DATA = {'skip_broken':broken, 'rescale':resized} # data on which an option is seen

@pytest.mark.parametrize('f,k', [(f, k) for f in scripts() for k in options(f)], ids=lambda o: getattr(o, '__name__', o))
def test_every_option_changes_something_or_is_refused(f, k, room, tmp_path, monkeypatch):
    assert k in OTHER, f'{f.__name__} has an option {k} that no test knows: give it another value in OTHER'
    seen,out = started(monkeypatch),tmp_path/'out'
    if k in DATA:
        shutil.copytree(room/'shapes', tmp_path/'shapes')
        DATA[k](tmp_path/'shapes')
        room = tmp_path
    flag = '--'+k.replace('_', '-')
    more = [flag] if OTHER[k] is None else [flag, value(OTHER[k], room, out)]
    for extra in ([], WITH[k]) if k in WITH else ([],):
        args  = [*base(f, room, out), *extra]
        plain = run(f, args, seen, out)
        code,err,new = run(f, [*args, *more], seen, out)
        if code==2: assert len(err.strip().splitlines())==1 and f'{f.__name__.replace("_","-")}: error: ' in err, err
        else: assert plain[0] in (0, 1) or k in DATA, plain
        if extra: assert code in (0, 1), err
        assert (code, new)!=(plain[0], plain[2]), f'{flag} changes nothing, and nothing says so'

ODD = ['nan','inf','-inf','0','-1','1.5','x','','1e400','99999999999999999999']
@pytest.mark.parametrize('f,k', numeric(), ids=lambda o: getattr(o, '__name__', o))
def test_every_number_is_refused_in_a_line_or_has_a_meaning(f, k, room, tmp_path, monkeypatch):
    seen,out = started(monkeypatch),tmp_path/'out'
    flag = '--'+k.replace('_', '-')
    for v in ODD:
        code,err,(_,did,wrote) = run(f, [*base(f, room, out), *WITH.get(k, []), f'{flag}={v}'], seen, out)
        assert code in (0, 1, 2), f'{flag} {v}: {code} {err[-300:]}'
        if code==2:
            named = f'error: {flag} ' in err or k=='valid' and v in ('x','') # the name of a split
            assert len(err.strip().splitlines())==1 and named, f'{flag} {v}: {err[-300:]}'
            assert did=='{}' and not wrote, f'{flag} {v}: {did}'
        else: assert MEANT.get((k, v)), f'{f.__name__} {flag} {v} was accepted'

MEANT = {(k, v): True for k,v in itertools.chain(itertools.product(['score','iou'], ['0']), itertools.product(['seed','frozen','workers'], ['0']),
         itertools.product(['lr'], ['1.5','99999999999999999999']), [('valid',''), ('minutes','1.5'), ('minutes','99999999999999999999'), ('tile_overlap','0')])}

@pytest.mark.parametrize('f', scripts(), ids=lambda o: o.__name__)
def test_underscores_and_unknown_options(f, room, tmp_path, monkeypatch):
    "`--max_per_class` is `--max-per-class`; what is no option is refused in a line"
    seen,out = started(monkeypatch),tmp_path/'out'
    for k in (o for o in options(f) if '_' in o and OTHER[o] is not None):
        one,two = (run(f, [*base(f, room, out), *WITH.get(k, []), f'--{o}', OTHER[k]], seen, out) for o in (k, k.replace('_','-')))
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

# --- what is printed where

def shell(f, *args): return [sys.executable, '-c', f'from ssd_fastai.cli import {f} as f; f()', *map(str, args)]

def command(f, room, out):
    "A command line of each script that does all its work"
    args = base(getattr(cli, f), room, out)
    if f=='ssd_train':   args += ['--arch','resnet18', '--size','32', '--bs','4', '--epochs','2']
    if f=='ssd_demo':    args += ['--epochs','1', '--size','32']
    if f=='ssd_predict': args += ['--draw', out/'drawn', '--csv', out/'t.csv']
    return shell(f, *args)

@pytest.mark.parametrize('f', [o.__name__ for o in scripts()])
def test_a_pipe_gets_plain_lines(f, room, tmp_path):
    res = subprocess.run(command(f, room, tmp_path/'out'), capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert res.returncode==0, res.stderr[-2000:]
    for o in (res.stdout, res.stderr): assert not set(o) & set('\r\b\x1b█'), repr(o)
    if f in ('ssd_train','ssd_demo'):
        rows = [o.split() for o in res.stdout.splitlines()]
        head = next(i for i,o in enumerate(rows) if o[:1]==['epoch'])
        n = 2 if f=='ssd_train' else 1
        assert [o[0] for o in rows[head+1:head+1+n]]==[str(i) for i in range(n)] and all(len(o)==len(rows[head]) for o in rows[head+1:head+1+n])

def test_a_terminal_gets_a_bar_and_then_a_row_per_epoch(room, tmp_path):
    pty = pytest.importorskip('pty')
    here,there = pty.openpty()
    env = {**os.environ, 'COLUMNS':'120', 'LINES':'40', 'TERM':'xterm'}
    p = subprocess.Popen(command('ssd_train', room, tmp_path/'out'), stdout=there, stderr=there, stdin=there, cwd=tmp_path, env=env)
    os.close(there)
    text = b''
    with contextlib.suppress(OSError):  # the other end is closed
        while (o := os.read(here, 65536)): text += o
    assert p.wait(600)==0, text[-2000:]
    text = text.decode().replace('\r\n', '\n').replace('\x1b[K', '')
    assert re.search('\r[^\r\n]*█', text), text[-3000:]
    seen = [o.rsplit('\r', 1)[-1] for o in text.split('\n')] # what stands on the screen in the end
    rows = [o.split() for o in seen]
    head = next(i for i,o in enumerate(rows) if o[:1]==['epoch'])
    assert [o[0] for o in rows[head+1:head+3]]==['0','1'] and not any('█' in o for o in seen), seen

# --- errors speak of options

PYTHON = re.compile(r"\b(pretrained|weights|bs|vocab|valid_pct|num_workers|rescale|skip_broken|classes|head|method|frozen|epochs|size|lr|seed|tile|"
                    r"tile_overlap|keep|patience|log|score|iou|max_per_class|max_per_image|arch|precision)\b ?=|`|\(--")
def spoken(f, args, out):
    code,err,(said,*_) = run(f, args, {}, out)
    assert code==2 and len(err.strip().splitlines())==1, err
    assert not PYTHON.search(err) and not PYTHON.search(said), err+said
    return err

def other_class(path):
    "A class that only the validation images have"
    xml = path/'Annotations'/f"{(path/'ImageSets/Main/val.txt').read_text().split()[0]}.xml"
    xml.write_text(re.sub('<name>[^<]*</name>', '<name>zebra</name>', xml.read_text(), count=1))

def random_names(path):
    "More validation images than there are"
    (path/'ImageSets/Main/val.txt').write_text('nowhere')

SPOKEN = [ # what is done to the data, the script, its options, what the line says
    (broken,      'ssd_train', [],                              '--skip-broken'),
    (broken,      'ssd_eval',  ['--split','train'],             '--skip-broken'),
    (resized,     'ssd_train', [],                              '--rescale'),
    (resized,     'ssd_eval',  [],                              '--rescale'),
    (other_class, 'ssd_train', ['--epochs','1'],                '--classes'),
    (other_class, 'ssd_eval',  ['--split','val'],               "'zebra'"),
    (None,        'ssd_train', ['--bs','999'],                  '--bs 999 is larger'),
    (None,        'ssd_train', ['--bs','0'],                    '--bs 0: give'),
    (None,        'ssd_train', ['--frozen','9', '--epochs','2'], '--frozen 9: the body must train too'),
    (None,        'ssd_train', ['--frozen','1'],                '--frozen 1: the body has random weights'),
    (None,        'ssd_train', ['--head','x'],                  "--head 'x': give one of"),
    (None,        'ssd_train', ['--method','x'],                '--method'),
    (None,        'ssd_train', ['--precision','x'],             '--precision'),
    (None,        'ssd_train', ['--keep','x'],                  '--keep'),
    (None,        'ssd_train', ['--log','x'],                   '--log'),
    (None,        'ssd_train', ['--weights','nowhere.pth'],     'nowhere.pth'),
    (None,        'ssd_train', ['--arch','nowhere'],            'nowhere'),
    (None,        'ssd_train', ['--classes','cow'],             "--classes: no object is called 'cow'"),
    (None,        'ssd_train', ['--classes',''],                '--classes'),
    (None,        'ssd_train', ['--minutes','1', '--epochs','1'], 'leave out --epochs'),
    (None,        'ssd_train', ['--minutes','0'],               '--minutes 0.0: give'),
    (None,        'ssd_train', ['--patience','0'],              '--patience 0: give'),
    (None,        'ssd_train', ['--tile','x'],                  '--tile x'),
    (None,        'ssd_train', ['--tile','64', '--tile-overlap','1'], '--tile-overlap 1.0: give'),
    (None,        'ssd_train', ['--valid','1.5'],               '--valid 1.5: give a share'),
    (None,        'ssd_train', ['--valid','0.2', '--group','x'], 'in parentheses'),
    (None,        'ssd_train', ['--valid','0.2', '--group','(x)'], 'does not fit'),
    (None,        'ssd_eval',  ['--score','2'],                 '--score 2.0'),
    (None,        'ssd_eval',  ['--max-per-image','0'],         '--max-per-image 0'),
    (None,        'ssd_eval',  ['--split','night'],             'night'),
    (None,        'ssd_predict', ['--iou','nan'],               '--iou nan'),
    (None,        'ssd_check', ['--size','x'],                  '--size x')]

@pytest.mark.parametrize('change,f,args,says', SPOKEN, ids=lambda o: getattr(o, '__name__', o) if callable(o) else str(o)[:40])
def test_errors_speak_of_options(change, f, args, says, room, tmp_path):
    if change:
        shutil.copytree(room/'shapes', tmp_path/'shapes')
        change(tmp_path/'shapes')
        shutil.copytree(room/'one', tmp_path/'one')
        room = tmp_path
    extra = ['--arch','resnet18', '--size','32'] if f=='ssd_train' and '--arch' not in args else []
    assert says in spoken(getattr(cli, f), [*base(getattr(cli, f), room, tmp_path/'out'), *extra, *args], tmp_path/'out')

def test_data_without_validation_split_names_the_option(room, tmp_path):
    "Not divided at all, and divided without `val`"
    (tmp_path/'photos').mkdir()
    for o in cli_records(room):
        shutil.copy(o.file, tmp_path/'photos')
        shutil.copy(o.file.parent.parent/'Annotations'/f'{o.file.stem}.xml', tmp_path/'photos')
    assert '--valid 0.2' in spoken(cli.ssd_train, [tmp_path/'photos', '--out', tmp_path/'out'], tmp_path/'out')
    shutil.copytree(room/'shapes', tmp_path/'shapes')
    (tmp_path/'shapes/ImageSets/Main/val.txt').unlink()
    assert '--valid 0.2' in spoken(cli.ssd_train, [tmp_path/'shapes', '--out', tmp_path/'out'], tmp_path/'out')
    err = spoken(cli.ssd_eval, [MODEL, tmp_path/'photos'], tmp_path/'out')
    assert '--split all' in err

@pytest.mark.parametrize('f', scripts(), ids=lambda o: o.__name__)
def test_version_and_help(f, capsys):
    for o in ('--version','--help'):
        with pytest.raises(SystemExit) as e: f([o])
        assert not e.value.code
        said = capsys.readouterr().out
        if o=='--version': assert len(said.splitlines())==1 and all(k in said for k in ('ssd_fastai','torch','Python')), said
        else: assert all('--'+k.replace('_','-') in said for k in options(f)), said

def test_the_data_scripts_say_the_layout(room, tmp_path, monkeypatch):
    seen,out = started(monkeypatch),tmp_path/'out'
    for f in (cli.ssd_check, cli.ssd_train, cli.ssd_eval):
        _,_,(said,*_) = run(f, base(f, room, out), seen, out)
        assert f"{room/'shapes'}: Pascal VOC folder: splits" in said
