"`ssd-check`: exit codes, output, the JSON file. And a layout that the package does not know."
import io, json, os, shutil, subprocess, sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
import pytest

CHECK = 'from ssd_fastai.cli import ssd_check; ssd_check()'

def as_process(*args, cwd):
    "The script in a process of its own"
    command = [sys.executable, '-c', CHECK, *map(str, args)]
    res = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert 'Traceback' not in res.stderr, res.stderr
    return res

def check(*args, cwd):
    "The script in this process, which saves the seconds of a start"
    from ssd_fastai.cli import ssd_check
    out,err,was,code = io.StringIO(),io.StringIO(),os.getcwd(),0
    os.chdir(cwd)
    try:
        with redirect_stdout(out), redirect_stderr(err): ssd_check([*map(str, args)])
    except SystemExit as e: code = e.code or 0
    finally: os.chdir(was)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A drawn set, and a copy with three faults"
    from ssd_fastai.synth import synth_voc
    path = tmp_path_factory.mktemp('check')
    synth_voc(path/'clean', n=40, seed=5, n_classes=2)
    shutil.copytree(path/'clean', path/'sick')
    xml = path/'sick/Annotations/000001.xml'
    text = xml.read_text()
    i,j = text.index('<xmax>')+6,text.index('</xmax>')
    xml.write_text(text[:i] + '1' + text[j:])                                         # xmax 1: inverted
    shutil.copy(path/'sick/JPEGImages/000002.jpg', path/'sick/JPEGImages/000030.jpg') # train into val
    shutil.copy(path/'sick/Annotations/000002.xml', path/'sick/Annotations/000030.xml')
    third = path/'sick/JPEGImages/000003.jpg'
    third.write_bytes(third.read_bytes()[:2000])
    write_yolo(path)
    return path

def write_yolo(path):
    "The clean set as a YOLO data set"
    from ssd_fastai.readers import read_voc
    names = read_voc(path/'clean').classes
    for split in ('train','val'):
        for o in ('images','labels'): (path/'yolo'/o/split).mkdir(parents=True)
        for o in read_voc(path/'clean', split):
            shutil.copy(o.file, path/'yolo/images'/split)
            (path/f'yolo/labels/{split}/{o.image_id}.txt').write_text(o.to_yolo(names))
    (path/'yolo/data.yaml').write_text(f'train: images/train\nval: images/val\nnames: {names}\n')

def test_clean_data(folder):
    res = check('clean', '--size', '128', '--json', 'clean.json', cwd=folder)
    assert res.returncode == 0, res.stdout
    d = json.loads((folder/'clean.json').read_text())
    assert d['ok'] and not d['stops'] and {o['severity'] for o in d['problems']} <= {'note'} and d['size'] == [128, 128]
    assert [d['splits'][k]['images'] for k in ('train', 'val')] == [28, 6]

def test_faults(folder):
    res = as_process('sick', '--size', '96x128', '--json', 'sick.json', '--draw', 'sick.png', cwd=folder)
    assert res.returncode == 1, res.stdout + res.stderr
    d = json.loads((folder/'sick.json').read_text())
    found = {(o['severity'], o['kind'], o['file'], o['object']) for o in d['problems'] if o['severity'] != 'note'}
    assert found == {('left out', 'inverted box', 'Annotations/000001.xml', 1),
                     ('stops', 'unreadable image', 'JPEGImages/000003.jpg', None),
                     ('harms', 'same image in two splits', 'JPEGImages/000030.jpg', None)}
    assert not d['ok'] and d['stops'] and all(o['reason'] and o['cure'] for o in d['problems'])
    assert all(name in res.stdout for *_,name,_ in found)
    assert '1 finding would stop training, 1 finding would harm training, 1 object left out' in res.stdout
    assert (folder/'sick.png').stat().st_size > 10_000 and not list(folder.glob('*.part'))

def test_exit_code_is_about_what_stops(folder):
    "What training leaves out by itself, or what harms it, is told, but ends with 0"
    for plant,ok in ((lambda xml: xml.write_text(xml.read_text().replace('<xmax>', '<xmax>-', 1)), True),   # inverted
                     (lambda xml: xml.write_text(xml.read_text().replace('<width>', '<width>9', 1)), False)): # wrong size
        shutil.rmtree(folder/'mild', ignore_errors=True); shutil.copytree(folder/'clean', folder/'mild')
        plant(folder/'mild/Annotations/000001.xml')
        res = check('mild', '--size', '128', '--json', 'mild.json', cwd=folder)
        d   = json.loads((folder/'mild.json').read_text())
        assert (res.returncode, d['ok'], d['stops']) == (0, ok, False), res.stdout + res.stderr

def test_yolo(folder):
    res = check('yolo', '--size', '128', '--json', 'yolo.json', cwd=folder)
    assert res.returncode == 0, res.stdout + res.stderr
    check('clean', '--size', '128', '--json', 'again.json', cwd=folder)
    clean,yolo = (json.loads((folder/f'{o}.json').read_text())['splits'] for o in ('again','yolo'))
    assert yolo == clean

def test_faulty_yolo(folder):
    shutil.copytree(folder/'yolo', folder/'sick_yolo')
    label = folder/'sick_yolo/labels/train/000001.txt'
    label.write_text('0 0.5 0.5 0.2 0.2\n9 0.1 0.1 0.1 0.1\n')
    res = check('sick_yolo/data.yaml', '--size', '128', '--json', 'sick_yolo.json', cwd=folder)
    assert res.returncode == 1, res.stdout + res.stderr
    stops = [o for o in json.loads((folder/'sick_yolo.json').read_text())['problems'] if o['severity'] == 'stops']
    assert [(o['kind'], o['file'], o['object']) for o in stops] == [('faulty object', 'labels/train/000001.txt', 2)]

BAD = [(['nowhere'], 'nowhere'), (['clean', '--valid', 'night'], 'night'), (['clean', '--size', 'big'], '--size big'),
       (['clean/JPEGImages', '--train', 'no.json', '--valid', 'no2.json'], 'no.json'),
       (['yolo', '--valid', 'night'], 'night'), (['yolo/no.yaml'], 'no.yaml')]

@pytest.mark.parametrize('args,word', BAD)
def test_nothing_to_check(folder, args, word):
    res = check(*args, cwd=folder)
    assert res.returncode == 2 and word in res.stderr and len(res.stderr.strip().splitlines()) == 1

# --- every layout of the table

def write_coco(path):
    "The clean set as images with a COCO file per split"
    from ssd_fastai.readers import read_voc
    (path/'coco').mkdir()
    ids = {o:i for i,o in enumerate(read_voc(path/'clean').classes, 1)}
    for split in ('train','val'):
        recs = read_voc(path/'clean', split)
        for o in recs: shutil.copy(o.file, path/'coco')
        anns = [dict(id=100*i+j, image_id=i, category_id=ids[n], bbox=[x1,y1,x2-x1,y2-y1], iscrowd=0)
                for i,o in enumerate(recs) for j,(n,(x1,y1,x2,y2)) in enumerate(zip(o.names, o.boxes.tolist()))]
        imgs = [dict(id=i, file_name=o.file.name, height=o.size[0], width=o.size[1]) for i,o in enumerate(recs)]
        cats = [dict(id=i, name=o) for o,i in ids.items()]
        (path/f'coco/{split}.json').write_text(json.dumps(dict(images=imgs, annotations=anns, categories=cats)))

def write_beside(path):
    "The clean set as folders of images with an XML file for each, and as images with a table per split"
    from ssd_fastai.readers import read_voc
    import pandas as pd
    for split in ('train','val'):
        recs = read_voc(path/'clean', split)
        for home in ('beside/'+split, 'table'):
            (path/home).mkdir(parents=True, exist_ok=True)
            for o in recs: shutil.copy(o.file, path/home)
        for o in recs: shutil.copy(path/f'clean/Annotations/{o.image_id}.xml', path/'beside'/split)
        df = pd.concat([o.to_df().assign(fname=o.file.name) for o in recs])[['label','x1','y1','x2','y2','fname']]
        df.rename(columns=dict(fname='filename', label='class', x1='xmin', y1='ymin', x2='xmax', y2='ymax')).to_csv(
            path/f'table/{split}.csv', index=False)

# layout: (its folder, names of its splits, a file to spoil, what to replace in it)
LAYOUTS = dict(VOC=('clean', ('train','val'), 'Annotations/000001.xml', ('<xmin>', '<xmin>x')),
               COCO=('coco', ('train','val'), 'train.json', ('"bbox": [', '"bbox": ["x", ')),
               YOLO=('yolo', ('train','val'), 'labels/train/000001.txt', (' ', ' x ')),
               folder=('beside', ('train','val'), 'train/000001.xml', ('<xmin>', '<xmin>x')),
               table=('table', ('train','val'), 'train.csv', ('.0,', 'x,')))

def test_every_layout_is_known_here():
    from ssd_fastai.readers import SOURCES
    assert LAYOUTS.keys() == SOURCES.keys(), 'a new layout: say here how it is written'

@pytest.mark.parametrize('name', LAYOUTS)
def test_layout(folder, name, tmp_path):
    "Described, its splits named, read like the VOC folder; a faulty number stops the reader and is one finding"
    from ssd_fastai.doctor import check_dataset
    from ssd_fastai.readers import SOURCES, read_split, read_voc
    if not (folder/'coco').exists(): write_coco(folder); write_beside(folder)
    home,splits,file,(old,new) = LAYOUTS[name]
    path = tmp_path/home
    shutil.copytree(folder/home, path)
    assert SOURCES[name].describe(path) and set(splits) <= set(SOURCES[name].splits(path))
    for split,o in zip(('train','val'), splits):
        for a,b in zip(read_split(path, o, verbose=False), read_voc(folder/'clean', split, verbose=False), strict=True):
            assert (a.file.name, a.names, a.size) == (b.file.name, b.names, b.size)
            assert (a.boxes-b.boxes).abs().sum() < 0.1
    (path/file).write_text((path/file).read_text().replace(old, new, 1))
    with pytest.raises(ValueError) as e: read_split(path, splits[0], verbose=False)
    assert Path(file).name in str(e.value) and '\n' not in str(e.value)
    report = check_dataset(path, *splits, size=128)
    assert [o.kind for o in report.stops] == ['faulty object'] and not report.harms, report

# --- a layout of our own: one table per split, beside the images, with an ending that no other layout has

def csv_splits(path): return sorted(o.stem for o in Path(path).glob('*.rows'))

def csv_parse(rows, size, faults=None):
    from ssd_fastai.formats import Annotation, collecting, parse_row
    objects = []
    for k,row in rows:
        with collecting(faults, 'object', k): objects.append(parse_row(row, k))
    return Annotation([o for o in objects if o])

def csv_jobs(path, split, faults=None):
    import pandas as pd
    from ssd_fastai.readers import Job, Listing
    df,images = pd.read_csv(Path(path)/f'{split}.rows'),{}
    for k,row in zip(df.index, df.to_dict('records')): images.setdefault(row['fname'], []).append((k, row))
    return Listing([Job(Path(path)/o, Path(path)/f'{split}.rows', partial(csv_parse, rows), o, True)
                    for o,rows in images.items()])

def test_a_layout_in_a_copy_of_the_table(folder):
    "One `Source`, and readers and doctor read it without a change to either"
    import pandas as pd
    from ssd_fastai.doctor import check_dataset
    from ssd_fastai.readers import SOURCES, Source, describe_data, read_split, read_voc
    source = Source('a folder of images with a table per split',
                    lambda path: f'tables: {", ".join(csv_splits(path))}' if csv_splits(path) else None,
                    csv_splits, csv_jobs)
    known,data = dict(SOURCES),folder/'own'
    mine = {**SOURCES, 'own':source}
    data.mkdir()
    for split in ('train','val'):
        recs = read_voc(folder/'clean', split)
        for o in recs: shutil.copy(o.file, data)
        pd.concat([o.to_df().assign(fname=o.file.name) for o in recs]).to_csv(data/f'{split}.rows', index=False)
    assert describe_data(data, mine) == 'tables: train, val'
    for a,b in zip(read_split(data, 'train,val', sources=mine), read_voc(folder/'clean', 'train,val')):
        assert (a.file.name, a.names, a.boxes.tolist()) == (b.file.name, b.names, b.boxes.tolist())
    assert check_dataset(data, size=128, sources=mine).problems == []
    text = (data/'train.rows').read_text().splitlines()
    text[1] = ','.join(['left' if i==2 else v for i,v in enumerate(text[1].split(','))])
    (data/'train.rows').write_text('\n'.join(text))
    report = check_dataset(data, size=128, sources=mine)
    assert [(o.kind, o.object, o.severity) for o in report.problems] == [('faulty object', 0, 'stops')]
    with pytest.raises(ValueError, match='no known layout'): read_split(data, 'train')
    assert SOURCES == known

def test_data_without_splits(folder, tmp_path):
    "All of it is checked, and divided for training"
    from ssd_fastai.data import DetectionDataLoaders
    from ssd_fastai.doctor import check_dataset
    for o in (folder/'clean/JPEGImages').iterdir():
        shutil.copy(o, tmp_path)
        shutil.copy(folder/f'clean/Annotations/{o.stem}.xml', tmp_path)
    report = check_dataset(tmp_path, size=128)
    assert ([*report.splits], report.splits['all']['images'], report.ok) == (['all'], 40, True), report
    dls = DetectionDataLoaders.from_folder(tmp_path, size=32, bs=4, num_workers=0, device='cpu')
    assert (len(dls.train_ds), len(dls.valid_ds)) == (32, 8)
    (tmp_path/'000001.xml').write_text('<annotation>')
    assert [o.kind for o in check_dataset(tmp_path).stops] == ['unreadable annotation']

# --- what no file at hand can be blamed for: no image opens, ids repeat, records instead of files

def test_no_image_opens(folder, tmp_path):
    "The wrong folder of images, and pointers of Git LFS: findings, exit code 1, no traceback"
    if not (folder/'coco').exists(): write_coco(folder); write_beside(folder)
    (tmp_path/'empty').mkdir()
    for o in ('train','val'): shutil.copy(folder/f'coco/{o}.json', tmp_path/'empty')
    res = check('empty', '--json', 'a.json', '--draw', 'a.png', cwd=tmp_path)
    assert res.returncode == 1 and 'image not found: 34' in res.stdout, res.stdout + res.stderr
    shutil.copytree(folder/'clean', tmp_path/'lfs')
    for o in (tmp_path/'lfs/JPEGImages').iterdir(): o.write_text('version https://git-lfs.github.com/spec/v1\n')
    res = check('lfs', cwd=tmp_path)
    assert res.returncode == 1 and 'unreadable image: 34' in res.stdout and 'git lfs pull' in res.stdout, res.stdout

@pytest.mark.parametrize('ids', [(7,7,7), (None,None,None), (1,1,'x')])
@pytest.mark.parametrize('bad', [0,1,2])
def test_ids_of_annotations_are_no_keys(folder, tmp_path, ids, bad):
    "One of three objects of an image is without width: that one is found, whatever the ids"
    from ssd_fastai.doctor import check_dataset
    from PIL import Image
    Image.linear_gradient('L').save(tmp_path/'a.png')
    boxes = [[10,10,50,50], [90,10,60,60], [20,120,80,40]]
    boxes[bad] = [*boxes[bad][:2], 0, 30]
    anns = [dict(id=k, image_id=1, category_id=1, bbox=b) for k,b in zip(ids, boxes)]
    d = dict(images=[dict(id=1, file_name='a.png')], annotations=anns, categories=[dict(id=1, name='cat')])
    (tmp_path/'t.json').write_text(json.dumps(d))
    found = [o for o in check_dataset(tmp_path, 't.json', None).problems if o.severity!='note']
    assert [(o.kind, o.box[:2], o.image) for o in found] == [('empty box', tuple(map(float, boxes[bad][:2])), str(tmp_path/'a.png'))]

def test_records_and_files_have_the_same_findings(folder):
    "What is found in the files is found in the records that were read from them, but for what a reader refuses"
    from ssd_fastai.doctor import check_dataset
    from ssd_fastai.readers import read_df, read_voc
    import pandas as pd
    files = check_dataset(folder/'clean', size=24)
    recs  = [read_voc(folder/'clean', o, verbose=False) for o in ('train','val')]
    frame = [read_df(pd.concat([r.to_df() for r in o]), folder, verbose=False) for o in recs]
    what  = lambda report: [(o.kind, o.severity, o.object, o.name) for o in report.problems]
    assert what(files) and what(check_dataset(*recs, size=24)) == what(files) == what(check_dataset(*frame, size=24))

# --- the search for the same picture

def scenes(kind, n, rng):
    "Thumbnails [n,16,16]: frames of a fixed camera of several kinds, and different pictures"
    import numpy as np
    x = np.repeat(rng.integers(0, 256, (1,8,8)).repeat(2, 1).repeat(2, 2).astype(float), n, 0)
    if kind == 'flicker': x[:,4,4] = rng.normal(128, 18, n)
    if kind == 'drift':   x *= (0.6+0.3*np.sin(np.arange(n)/n*9))[:,None,None]
    if kind == 'object':
        for i,(a,b) in enumerate(rng.integers(0, 14, (n,2))): x[i,a:a+3,b:b+3] = rng.integers(0, 256)
    if kind == 'dull':    x = 100+rng.normal(0, 5, (n,16,16))
    if kind == 'groups':  x = rng.integers(0, 256, (n//20,16,16))[rng.integers(0, n//20, n)] + rng.integers(-6, 7, (n,16,16))
    return (x+rng.normal(0, 1, x.shape)).clip(0, 255).astype(np.uint8)

KINDS = ['flicker','drift','object','dull','groups']

@pytest.mark.parametrize('kind', KINDS)
def test_first_alike_is_that_of_all_pairs(kind):
    import numpy as np, torch
    from ssd_fastai.splits import alike
    rng = np.random.default_rng(2)
    thumbs,ratios = scenes(kind, 2500, rng),np.where(rng.random(2500)<0.9, 1., 1.5)
    x,r   = torch.as_tensor(thumbs).float().flatten(1),torch.as_tensor(ratios)
    limit = 0.1*x.std(1)
    found = []
    for j in range(1, len(x)):
        d  = x[:j]-x[j]
        ok = (limit[:j]>0.1) & (d.pow(2).mean(1).sqrt()<=limit[:j]) & (d.abs().amax(1)<=12) & (r[:j]==r[j])
        if ok.any(): found.append((int(ok.nonzero()[0]), j))
    assert alike(thumbs, ratios) == sorted(found)

@pytest.mark.parametrize('kind', KINDS)
def test_many_frames_of_a_fixed_camera(kind):
    "In seconds; the time for all pairs would grow with the square of their number"
    import time, numpy as np
    from ssd_fastai.splits import alike
    thumbs = scenes(kind, 10_000, np.random.default_rng(3))
    start  = time.perf_counter()
    alike(thumbs, np.ones(10_000))
    assert time.perf_counter()-start < 30
