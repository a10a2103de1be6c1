"The same data in every layout that people have: one set of drawn images, written by hand in each, gives the same records."
import json, shutil
import numpy as np, pandas as pd, pytest, torch
from pathlib import Path
from PIL import Image
from ssd_fastai.doctor import check_dataset
from ssd_fastai.readers import (BROKEN, NO_FILE, NO_LABELS, OTHER_CLASS, SOURCES, describe_data, find_source, read_coco, read_df, read_split,
                                read_yolo)
from ssd_fastai.synth import synth_voc

PARTS = dict(train=range(8), val=range(8,12), test=range(12,14))
NAMES = ['ball','cone','dice']

@pytest.fixture(scope='module')
def truth(tmp_path_factory):
    "Drawn records; the last of each split has no object; and the folder for all layouts"
    root = tmp_path_factory.mktemp('layouts')
    src  = synth_voc(root/'src', n=14, seed=5, n_classes=3)
    recs = read_split(src, 'all', verbose=False)
    assert len(recs)==14 and len(recs.classes)==3
    names = dict(zip(recs.classes, NAMES))
    for i,o in enumerate(recs):
        o.names = [names[n] for n in o.names]
        if i in (7,11,13): recs[i] = type(o)([], [], size=o.size, file=o.file)
    return recs,root

def part_of(i): return next(k for k,v in PARTS.items() if i in v)

def put(o, folder):
    "Copy the image of a record"
    Path(folder).mkdir(parents=True, exist_ok=True)
    shutil.copy(o.file, folder)
    return Path(folder)/o.file.name

def write(file, text):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(text)

def coco_dict(recs, name=lambda o: dict(file_name=o.file.name), boxes=True):
    imgs = [dict(id=i, height=o.size[0], width=o.size[1], **name(o)) for i,o in enumerate(recs, 1)]
    anns = [a for i,o in enumerate(recs, 1) for a in o.to_coco(i, {n: 10+k for k,n in enumerate(NAMES)}, first_id=100*i)]
    return dict(images=imgs, annotations=anns, categories=[dict(id=10+k, name=n) for k,n in enumerate(NAMES)])

def parts(recs): return {k: [recs[i] for i in v] for k,v in PARTS.items()}

def table(recs): return pd.concat([o.to_df() for o in recs]).assign(fname=lambda d: [Path(o).name for o in d.fname])

RACCOON = dict(fname='filename', label='class', x1='xmin', y1='ymin', x2='xmax', y2='ymax')

# --- the layouts: each writes the records into folder `d`, and returns the path of the data

def voc(recs, d):
    for k,some in parts(recs).items():
        for o in some: put(o, d/'JPEGImages'); write(d/f'Annotations/{o.file.stem}.xml', o.to_voc())
        write(d/f'ImageSets/Main/{k}.txt', '\n'.join(o.file.stem for o in some))
    return d

def coco_beside(recs, d):
    for k,some in parts(recs).items():
        for o in some: put(o, d)
        write(d/f'{k}.json', json.dumps(coco_dict(some)))
    return d

def coco_own(recs, d):
    for k,some in parts(recs).items():
        for o in some: put(o, d/f'{k}2017')
        write(d/f'annotations/instances_{k}2017.json', json.dumps(coco_dict(some)))
        write(d/f'annotations/captions_{k}2017.json', json.dumps(dict(images=[], annotations=[])))
    return d

def coco_own_in_images(recs, d):
    coco_own(recs, d)
    (d/'images').mkdir()
    for k in PARTS: (d/f'{k}2017').rename(d/f'images/{k}2017')
    return d

def coco_roboflow(recs, d):
    for k,some in parts(recs).items():
        for o in some: put(o, d/dict(val='valid').get(k, k))
        write(d/dict(val='valid').get(k, k)/'_annotations.coco.json', json.dumps(coco_dict(some)))
    return d

def coco_lvis(recs, d):
    for k,some in parts(recs).items():
        for o in some: put(o, d/f'{k}2017')
        name = lambda o: dict(coco_url=f'http://images.cocodataset.org/{k}2017/{o.file.name}')
        write(d/f'lvis_v1_{k}.json', json.dumps(coco_dict(some, name)))
    return d

def yolo_label(o): return o.to_yolo(NAMES)

def yolo_ultralytics(recs, d, names=f'names: {NAMES}', head='path: .\n', images='images/{}', labels='labels/{}', empty=True):
    for k,some in parts(recs).items():
        for o in some:
            put(o, d/images.format(k))
            if empty or len(o): write(d/labels.format(k)/f'{o.file.stem}.txt', yolo_label(o))
    write(d/'data.yaml', head+''.join(f'{k}: {images.format(k)}\n' for k in PARTS)+names+'\n')
    return d

def yolo_dict_names(recs, d): return yolo_ultralytics(recs, d, 'names:\n'+''.join(f'  {i}: {n}\n' for i,n in enumerate(NAMES)), '')
def yolo_missing_labels(recs, d): return yolo_ultralytics(recs, d, empty=False)

def yolo_roboflow(recs, d):
    for k,some in parts(recs).items():
        for o in some: put(o, d/k/'images'); write(d/k/f'labels/{o.file.stem}.txt', yolo_label(o))
    (d/'val').rename(d/'valid')
    write(d/'data.yaml', f'train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 3\nnames: {NAMES}\n')
    return d

def yolo_lists(recs, d):
    yolo_ultralytics(recs, d)
    for k,some in parts(recs).items(): write(d/f'{k}.txt', ''.join(f'./images/{k}/{o.file.name}\n' for o in some))
    write(d/'data.yaml', ''.join(f'{k}: {k}.txt\n' for k in PARTS)+f'names: {NAMES}\n')
    return d/'data.yaml'

def yolo_folder_lists(recs, d):
    for i,o in enumerate(recs):
        put(o, d/f'images/{part_of(i)}{i%2}'); write(d/f'labels/{part_of(i)}{i%2}/{o.file.stem}.txt', yolo_label(o))
    write(d/'data.yaml', ''.join(f'{k}: [images/{k}0, images/{k}1]\n' for k in PARTS)+f'names: {NAMES}\n')
    return d

def yolo_cvat(recs, d):
    folder = dict(train='obj_train_data', val='obj_Validation_data', test='obj_Test_data')
    for k,some in parts(recs).items():
        for o in some: put(o, d/folder[k]); write(d/folder[k]/f'{o.file.stem}.txt', yolo_label(o))
        write(d/f'{k}.txt', ''.join(f'data/{folder[k]}/{o.file.name}\n' for o in some))
    (d/'val.txt').rename(d/'valid.txt')
    write(d/'obj.names', '\n'.join(NAMES)+'\n')
    write(d/'obj.data', 'classes = 3\nnames = data/obj.names\ntrain = data/train.txt\nvalid = data/valid.txt\ntest = data/test.txt\nbackup = backup/\n')
    return d

def yolo_darknet_roboflow(recs, d):
    for i,o in enumerate(recs):
        f = d/dict(val='valid').get(part_of(i), part_of(i))
        put(o, f); write(f/f'{o.file.stem}.txt', yolo_label(o)); write(f/'_darknet.labels', '\n'.join(NAMES))
    return d

def labelme_parted(recs, d):
    for i,o in enumerate(recs): put(o, d/part_of(i)); write(d/part_of(i)/f'{o.file.stem}.json', o.to_labelme())
    return d

def xml_parted(recs, d):
    "In folders of any name"
    for i,o in enumerate(recs):
        put(o, d/'photos'/part_of(i)); write(d/'xml'/part_of(i)/f'{o.file.stem}.xml', o.to_voc())
    return d

def xml_roboflow(recs, d):
    for i,o in enumerate(recs):
        f = d/dict(val='valid').get(part_of(i), part_of(i))
        put(o, f); write(f/f'{o.file.stem}.xml', o.to_voc())
    return d

def csv_column(recs, d, column='split', words=dict(train='train', val='valid', test='test')):
    for o in recs: put(o, d)
    df = pd.concat([table(some).assign(**{column: words[k]}) for k,some in parts(recs).items()])
    df.to_csv(d/'annotations.csv', index=False)
    return d

def csv_files(recs, d):
    "As the raccoon set has them, with the sizes of images"
    for k,some in parts(recs).items():
        for o in some: put(o, d/'images')
        size = {o.file.name: o.size for o in some}
        df = table(some).drop(columns='difficult').rename(columns=RACCOON)
        df = df.assign(width=[size[o][1] for o in df.filename], height=[size[o][0] for o in df.filename])
        (d/'data').mkdir(exist_ok=True)
        df['filename width height class xmin ymin xmax ymax'.split()].to_csv(d/f'data/{k}_labels.csv', index=False)
    return d

def csv_roboflow(recs, d):
    for k,some in parts(recs).items():
        for o in some: put(o, d/dict(val='valid').get(k, k))
        table(some).rename(columns=RACCOON).to_csv(d/dict(val='valid').get(k, k)/'_annotations.csv', index=False)
    return d

# without splits
def yolo_label_studio(recs, d):
    for o in recs: put(o, d/'images'); write(d/f'labels/{o.file.stem}.txt', yolo_label(o))
    write(d/'classes.txt', '\n'.join(NAMES)); write(d/'notes.json', json.dumps(dict(categories=[dict(id=0, name='ball')], info={})))
    return d

def yolo_label_img(recs, d):
    for o in recs: put(o, d); write(d/f'{o.file.stem}.txt', yolo_label(o))
    write(d/'classes.txt', '\n'.join(NAMES)+'\n')
    return d

def labelme_beside(recs, d):
    for o in recs: put(o, d); write(d/f'{o.file.stem}.json', o.to_labelme())
    return d

def labelme_sibling(recs, d):
    for o in recs: put(o, d/'images'); write(d/f'json/{o.file.stem}.json', o.to_labelme())
    return d

def xml_beside(recs, d):
    for o in recs: put(o, d); write(d/f'{o.file.stem}.xml', o.to_voc())
    return d

def voc_without_lists(recs, d):
    for o in recs: put(o, d/'JPEGImages'); write(d/f'Annotations/{o.file.stem}.xml', o.to_voc())
    return d

def coco_one_file(recs, d):
    for o in recs: put(o, d/'images/default')
    write(d/'annotations/instances_default.json', json.dumps(coco_dict(recs)))
    return d

def coco_label_studio(recs, d):
    for o in recs: put(o, d/'images')
    write(d/'result.json', json.dumps(coco_dict(recs, lambda o: dict(file_name=f'images/{o.file.name}'))))
    return d/'result.json'

def csv_one(recs, d):
    for o in recs: put(o, d/'pets')
    table(recs).to_csv(d/'pets_labels.csv', index=False)
    return d/'pets_labels.csv'

def tsv_one(recs, d):
    for o in recs: put(o, d)
    table(recs).to_csv(d/'boxes.tsv', index=False, sep='\t')
    return d/'boxes.tsv'

SPLIT = [voc, coco_beside, coco_own, coco_own_in_images, coco_roboflow, coco_lvis, yolo_ultralytics, yolo_dict_names, yolo_missing_labels,
         yolo_roboflow, yolo_lists, yolo_folder_lists, yolo_cvat, yolo_darknet_roboflow, labelme_parted, xml_parted, xml_roboflow, csv_column,
         csv_files, csv_roboflow]
HEAP  = [yolo_label_studio, yolo_label_img, labelme_beside, labelme_sibling, xml_beside, voc_without_lists, coco_one_file, coco_label_studio,
         csv_one, tsv_one]

def facts(recs, sort=False):
    out = [(o.file.name, o.size, o.names, o.boxes) for o in recs]
    return sorted(out, key=lambda o: o[0]) if sort else out

def agree(a, b, sort=False):
    "The same images, classes and boxes; YOLO's shares of nine digits give back a pixel to a thousandth"
    a,b = facts(a, sort),facts(b, sort)
    assert [o[:3] for o in a]==[o[:3] for o in b]
    for (*_,p),(*_,q) in zip(a, b): torch.testing.assert_close(p, q, atol=1e-3, rtol=0)

@pytest.mark.parametrize('layout', SPLIT, ids=lambda o: o.__name__)
def test_with_splits(layout, truth, tmp_path):
    recs,_ = truth
    path = layout(recs, tmp_path/'d')
    for k,some in parts(recs).items(): agree(read_split(path, k, verbose=False), some, sort=True)
    agree(read_split(path, 'valid', verbose=False), [recs[i] for i in PARTS['val']], sort=True)
    every = read_split(path, 'all', verbose=False)
    agree(every, recs, sort=True)
    assert not [o for o in every.notes if o.why!=NO_LABELS] and len(every.notes)==(sum(not len(o) for o in recs) if layout is yolo_missing_labels else 0)
    assert all(o in describe_data(path) for o in ('train','test')), describe_data(path)
    check_agrees(path, 'train', 'val', recs)
    some = read_split(path, 'train', classes=['ball'], verbose=False)
    assert {*some.classes}=={'ball'} and len(some)==8 and {o.why for o in some.of_kind('left out')}=={OTHER_CLASS}

@pytest.mark.parametrize('layout', HEAP, ids=lambda o: o.__name__)
def test_without_splits(layout, truth, tmp_path):
    recs,_ = truth
    path = layout(recs, tmp_path/'d')
    agree(read_split(path, 'all', verbose=False), recs, sort=True)
    assert find_source(path).splits(path)==[] and 'no' in describe_data(path)
    one_line(lambda: read_split(path, 'train'), '--valid 0.2', 'valid_pct=0.2')
    check_agrees(path, 'all', None, recs)

def check_agrees(path, train, valid, recs):
    "The doctor reads the same, and finds nothing that harms but what is drawn"
    rep = check_dataset(path, train, valid)
    n = 14 if train=='all' else 8
    assert rep.splits[train]['images']==n and rep.splits[train]['objects']==sum(len(o) for o in recs[:n])
    assert not [o for o in rep.problems if o.kind in ('unreadable annotation','missing annotation','faulty object','image not found','box reaches out')]

def one_line(f, *words):
    with pytest.raises(ValueError) as e: f()
    assert '\n' not in str(e.value) and all(o in str(e.value) for o in words), str(e.value)

@pytest.mark.parametrize('layout', [voc, coco_own, yolo_roboflow, yolo_label_studio, labelme_beside, csv_column], ids=lambda o: o.__name__)
def test_list_of_images(layout, truth, tmp_path, monkeypatch):
    "A text file of paths, absolute or relative to where one stands, is a split; a broken image is left out and named"
    recs,_ = truth
    path  = layout(recs, tmp_path/'d')
    every = read_split(path, 'all', verbose=False)
    some  = [every[i] for i in (9,2,5)]
    for i,line in enumerate((lambda o: str(o.file), lambda o: str(o.file.relative_to(tmp_path)), lambda o: str(o.file.relative_to(tmp_path/'d')),
                             lambda o: o.file.name)):
        write(tmp_path/f'runs/{i}.txt', ''.join(line(o)+'\n' for o in some))
        monkeypatch.chdir(tmp_path)
        back = read_split(path, f'runs/{i}.txt', verbose=False)
        assert [o.file.name for o in back]==[o.file.name for o in some]
        agree(back, some)
    write(tmp_path/'runs/x.txt', 'nothing.png\n'); one_line(lambda: read_split(path, 'runs/x.txt'), 'runs/x.txt', 'nothing.png')
    cut = some[1].file
    for data in (cut.read_bytes()[:-30], b'<html>'):
        cut.write_bytes(data)
        read = lambda **kw: read_split(path, 'runs/0.txt', verbose=False, **kw)
        sound = read(skip_broken=True)
        assert [o.file for o in sound]==[some[0].file, some[2].file] and [(o.why, o.file) for o in sound.skipped]==[(BROKEN, cut.name)]
        assert f'left out 1 image {BROKEN} ({cut.name})' in sound.summary()
    one_line(read, cut.name, 'skip_broken=True', '--skip-broken')

def test_images_without_annotation(truth, tmp_path):
    "Beside LabelMe's files: not labelled yet, left out and counted. In YOLO's layout: without objects, said"
    recs,_ = truth
    path = labelme_beside(recs, tmp_path/'a'); (path/f'{recs[3].file.stem}.json').unlink()
    read = read_split(path, 'all', verbose=False)
    assert len(read)==13 and [(o.why, o.file) for o in read.skipped]==[(NO_FILE, recs[3].file.name)]
    assert describe_data(path)=='13 images with LabelMe JSON beside them: no splits; 1 image without, left out'
    path = yolo_label_studio(recs, tmp_path/'b'); (path/f'labels/{recs[3].file.stem}.txt').unlink()
    read = read_split(path, 'all', verbose=False)
    named = {o.file.name: o for o in read}
    assert len(read)==14 and not len(named[recs[3].file.name]) and [o.why for o in read.notes]==[NO_LABELS]

def test_outlines_and_masks(truth, tmp_path):
    "Polygons, run lengths and packed run lengths without bbox: the box around them, as pycocotools has it"
    masks = pytest.importorskip('pycocotools.mask')
    recs  = [o for o in truth[0] if len(o)][:4]
    for o in recs: put(o, tmp_path)
    for kind in ('polygon','list','packed'):
        d = coco_dict(recs)
        size = {i['id']: (i['height'],i['width']) for i in d['images']}
        for o in d['annotations']:
            x,y,w,h = o.pop('bbox')
            m = np.zeros(size[o['image_id']], np.uint8, order='F'); m[round(y):round(y+h), round(x):round(x+w)] = 1
            rle = masks.encode(m)
            flat  = m.ravel(order='F')
            edges = np.flatnonzero(np.diff(flat))+1
            counts = np.diff([0, *edges, len(flat)]).tolist()
            if flat[0]: counts = [0, *counts]
            o['segmentation'] = dict(polygon=[[x,y, x+w,y, x+w,y+h, x,y+h]], list=dict(size=list(m.shape), counts=counts),
                                     packed=dict(size=list(m.shape), counts=rle['counts'].decode()))[kind]
        write(tmp_path/'t.json', json.dumps(d))
        back = read_coco(tmp_path, tmp_path/'t.json', verbose=False)
        for a,b in zip(recs, back): torch.testing.assert_close(a.boxes, b.boxes, atol=0.5+1e-3 if kind!='polygon' else 1e-3, rtol=0)

def test_two_categories_of_one_name(truth, tmp_path):
    "Roboflow's supercategory is often called like the class: both ids mean the class"
    recs = truth[0][:3]
    for o in recs: put(o, tmp_path)
    d = coco_dict(recs); d['categories'].append(dict(id=0, name='ball', supercategory='none'))
    write(tmp_path/'t.json', json.dumps(d))
    back = read_coco(tmp_path, tmp_path/'t.json', verbose=False)
    assert back.category_ids['ball']==10 and (back.category_names[0], back.category_names[10])==('ball','ball')

def test_read_df_takes_the_same_columns(truth):
    recs,_ = truth
    df = pd.concat([o.to_df() for o in recs]).rename(columns=RACCOON)
    agree(read_df(df.assign(filename=[Path(o) for o in df.filename]), recs[0].file.parent, verbose=False), recs)

def test_yolo_faults(truth, tmp_path):
    recs,_ = truth
    path = yolo_roboflow(recs, tmp_path/'d')
    label = path/f'train/labels/{recs[0].file.stem}.txt'
    for text,what in (('3 .5 .5 .1 .1\n','class 3 is out of range (0 to 2)'), ('0 .5 .5\n','3 numbers'), ('0 .5 x .1 .1\n',"'x'")):
        label.write_text(text); one_line(lambda: read_yolo(path, verbose=False), label.name, 'line 1', what)
    label.write_text('0 .1 .1 .3 .1 .3 .4\n')
    h,w = recs[0].size
    read = {o.file.name: o for o in read_yolo(path, verbose=False)}
    torch.testing.assert_close(read[recs[0].file.name].boxes, torch.tensor([[.1*w,.1*h,.3*w,.4*h]]), atol=1e-3, rtol=0)

def test_sources_are_one_table(): assert [*SOURCES]==['VOC','YOLO','COCO','table','folder']
