"`ssd-check` as a process: exit codes, output, the JSON file. And a layout that the package does not know."
import json, shutil, subprocess, sys
from functools import partial
from pathlib import Path
import pytest

CHECK = 'from ssd_fastai.cli import ssd_check; ssd_check()'

def check(*args, cwd):
    command = [sys.executable, '-c', CHECK, *map(str, args)]
    res = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert 'Traceback' not in res.stderr, res.stderr
    return res

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
    assert d['ok'] and not [o for o in d['problems'] if o['severity'] == 'harms'] and d['size'] == [128, 128]
    assert [d['splits'][k]['images'] for k in ('train', 'val')] == [28, 6]

def test_faults(folder):
    res = check('sick', '--size', '96x128', '--json', 'sick.json', '--draw', 'sick.png', cwd=folder)
    assert res.returncode == 1, res.stdout + res.stderr
    d = json.loads((folder/'sick.json').read_text())
    found = {(o['kind'], o['file'], o['object']) for o in d['problems'] if o['severity'] == 'harms'}
    assert found == {('inverted box', 'Annotations/000001.xml', 1), ('unreadable image', 'JPEGImages/000003.jpg', None),
                     ('same image in two splits', 'JPEGImages/000030.jpg', None)}
    assert not d['ok'] and all(o['reason'] and o['cure'] for o in d['problems'])
    assert all(name in res.stdout for _,name,_ in found) and '3 findings would harm training' in res.stdout
    assert (folder/'sick.png').stat().st_size > 10_000 and not list(folder.glob('*.part'))

def test_yolo(folder):
    res = check('yolo', '--size', '128', '--json', 'yolo.json', cwd=folder)
    assert res.returncode == 0, res.stdout + res.stderr
    clean,yolo = (json.loads((folder/f'{o}.json').read_text())['splits'] for o in ('clean','yolo'))
    assert yolo == clean

def test_faulty_yolo(folder):
    shutil.copytree(folder/'yolo', folder/'sick_yolo')
    label = folder/'sick_yolo/labels/train/000001.txt'
    label.write_text('0 0.5 0.5 0.2 0.2\n9 0.1 0.1 0.1 0.1\n')
    res = check('sick_yolo/data.yaml', '--size', '128', '--json', 'sick_yolo.json', cwd=folder)
    assert res.returncode == 1, res.stdout + res.stderr
    harms = [o for o in json.loads((folder/'sick_yolo.json').read_text())['problems'] if o['severity'] == 'harms']
    assert [(o['kind'], o['file'], o['object']) for o in harms] == [('faulty object', 'labels/train/000001.txt', 2)]

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

# layout: (its folder, names of its splits, a file to spoil, what to replace in it)
LAYOUTS = dict(VOC=('clean', ('train','val'), 'Annotations/000001.xml', ('<xmin>', '<xmin>x')),
               COCO=('coco', ('train.json','val.json'), 'train.json', ('"bbox": [', '"bbox": ["x", ')),
               YOLO=('yolo', ('train','val'), 'labels/train/000001.txt', (' ', ' x ')))

def test_every_layout_is_known_here():
    from ssd_fastai.readers import SOURCES
    assert LAYOUTS.keys() == SOURCES.keys(), 'a new layout: say here how it is written'

@pytest.mark.parametrize('name', LAYOUTS)
def test_layout(folder, name, tmp_path):
    "Described, its splits named, read like the VOC folder; a faulty number stops the reader and is one finding"
    from ssd_fastai.doctor import check_dataset
    from ssd_fastai.readers import SOURCES, read_split, read_voc
    if not (folder/'coco').exists(): write_coco(folder)
    home,splits,file,(old,new) = LAYOUTS[name]
    path = tmp_path/home
    shutil.copytree(folder/home, path)
    assert SOURCES[name].describe(path) and set(splits) <= set(SOURCES[name].splits(path))
    given = [str(path/o) if o.endswith('.json') else o for o in splits]
    for split,o in zip(('train','val'), given):
        for a,b in zip(read_split(path, o, verbose=False), read_voc(folder/'clean', split, verbose=False), strict=True):
            assert (a.file.name, a.names, a.size) == (b.file.name, b.names, b.size)
            assert (a.boxes-b.boxes).abs().sum() < 0.1
    (path/file).write_text((path/file).read_text().replace(old, new, 1))
    with pytest.raises(ValueError) as e: read_split(path, given[0], verbose=False)
    assert Path(file).name in str(e.value) and '\n' not in str(e.value)
    harms = check_dataset(path, *given, size=128).harms
    assert [o.kind for o in harms] == ['faulty object'], harms

# --- a layout of our own: one CSV file per split, beside the images

def csv_splits(path): return sorted(o.stem for o in Path(path).glob('*.csv'))

def csv_parse(rows, size, faults=None):
    from ssd_fastai.formats import Annotation, collecting, parse_row
    objects = []
    for k,row in rows:
        with collecting(faults, 'object', k): objects.append(parse_row(row, k))
    return Annotation([o for o in objects if o])

def csv_jobs(path, split, faults=None):
    import pandas as pd
    from ssd_fastai.readers import Job, Listing
    df,images = pd.read_csv(Path(path)/f'{split}.csv'),{}
    for k,row in zip(df.index, df.to_dict('records')): images.setdefault(row['fname'], []).append((k, row))
    return Listing([Job(Path(path)/o, Path(path)/f'{split}.csv', partial(csv_parse, rows), o, True)
                    for o,rows in images.items()])

def test_a_layout_in_a_copy_of_the_table(folder):
    "One `Source`, and readers and doctor read it without a change to either"
    import pandas as pd
    from ssd_fastai.doctor import check_dataset
    from ssd_fastai.readers import SOURCES, Source, describe_data, read_split, read_voc
    source = Source('a folder of images with a CSV file per split',
                    lambda path: f'CSV files: {", ".join(csv_splits(path))}' if csv_splits(path) else None,
                    csv_splits, csv_jobs)
    known,data = dict(SOURCES),folder/'csv'
    mine = {**SOURCES, 'csv':source}
    data.mkdir()
    for split in ('train','val'):
        recs = read_voc(folder/'clean', split)
        for o in recs: shutil.copy(o.file, data)
        pd.concat([o.to_df().assign(fname=o.file.name) for o in recs]).to_csv(data/f'{split}.csv', index=False)
    assert describe_data(data, mine) == 'CSV files: train, val'
    for a,b in zip(read_split(data, 'train,val', sources=mine), read_voc(folder/'clean', 'train,val')):
        assert (a.file.name, a.names, a.boxes.tolist()) == (b.file.name, b.names, b.boxes.tolist())
    assert check_dataset(data, size=128, sources=mine).problems == []
    text = (data/'train.csv').read_text().splitlines()
    text[1] = ','.join(['left' if i==2 else v for i,v in enumerate(text[1].split(','))])
    (data/'train.csv').write_text('\n'.join(text))
    report = check_dataset(data, size=128, sources=mine)
    assert [(o.kind, o.object, o.severity) for o in report.problems] == [('faulty object', 0, 'harms')]
    with pytest.raises(ValueError, match='no known layout'): read_split(data, 'train')
    assert SOURCES == known
