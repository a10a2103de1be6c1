"Dividing a data set: what must hold for any images, copies, groups, shares and seeds; and for every layout."
import itertools, os, shutil
from collections import Counter
from pathlib import Path
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

BUSY = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Ten scenes, each in four versions: a checker board, and ever brighter ones, of which only neighbours are alike"
    import numpy as np
    from PIL import Image
    path = tmp_path_factory.mktemp('scenes')
    rng  = np.random.default_rng(0)
    for k in range(10):
        scene = rng.integers(0, 2, (8,8)).repeat(4, 0).repeat(4, 1)*200
        for v in range(4): Image.fromarray((scene+6*v).astype(np.uint8)).save(path/f'{k}_{v}.png')
    return path

def scene(file): return Path(file).stem.split('_')[0]

def record(folder, name, classes=()):
    from ssd_fastai.records import GroundTruth
    return GroundTruth([[1,1,9,9]]*len(classes), list(classes), size=(32,32), file=folder/f'{name}.png')

def joined(names, group):
    "The sets of names that stay together: neighbouring versions of a scene, and those of one group"
    parts = [{o} for o in names]
    near  = lambda a,b: a[0]==b[0] and abs(int(a[2])-int(b[2]))<=1
    for a,b in itertools.combinations(names, 2):
        if near(a, b) or group and group(Path(a))==group(Path(b)):
            one,two = (next(p for p in parts if o in p) for o in (a,b))
            if one is not two: parts = [p for p in parts if p is not one and p is not two]+[one|two]
    return parts

NAMES  = st.lists(st.sampled_from([f'{k}_{v}' for k in range(10) for v in range(4)]), min_size=2, max_size=24, unique=True)
GROUPS = st.sampled_from([None, scene, lambda file: int(scene(file))%3, lambda file: int(scene(file))//4])

@given(names=NAMES, pct=st.floats(0.01, 0.99), seed=st.integers(0, 10**6), group=GROUPS, order=st.randoms(use_true_random=False))
@settings(max_examples=60, **BUSY)
def test_any_split(folder, names, pct, seed, group, order):
    from ssd_fastai.splits import split_records
    parts = joined(names, group)
    recs  = [record(folder, o, [f'c{o[0]}']) for o in names]
    if len(parts)==1:
        with pytest.raises(ValueError, match='none can be kept') as e: split_records(recs, pct, seed, group)
        return
    train,valid = split_records(recs, pct, seed, group, verbose=False)
    a,b = ([o.file.stem for o in x] for x in (train,valid))
    assert a and b and sorted(a+b) == sorted(names)                                   # each once, no side empty
    assert all(p <= {*a} or p <= {*b} for p in parts)                                 # what belongs together stays so
    want  = pct*len(names)
    sums  = {sum(map(len, c)) for k in range(1, len(parts)) for c in itertools.combinations(parts, k)} if len(parts)<=14 else {round(want)}
    if len(parts)<=14: assert abs(len(b)-want) <= min(abs(s-want) for s in sums)+1e-9 # as close as whole groups allow
    order.shuffle(recs)
    train2,valid2 = split_records(recs, pct, seed, group, verbose=False)              # in whatever order
    assert ({o.file for o in train2}, {o.file for o in valid2}) == ({o.file for o in train}, {o.file for o in valid})

@given(names=NAMES, seed=st.integers(0, 99))
@settings(max_examples=30, **BUSY)
def test_connections_do_not_depend_on_order(folder, names, seed):
    "A chain A–B–C is one group even where C stands before B; `near_copies` gives the first that each image shows"
    import random
    from ssd_fastai.splits import near_copies
    random.Random(seed).shuffle(names)
    files = [folder/f'{o}.png' for o in names]
    alike = lambda a,b: a[0]==b[0] and abs(int(a[2])-int(b[2]))<=1
    first = [(next((i for i in range(j) if alike(names[i], names[j])), None), j) for j in range(len(names))]
    assert near_copies(files) == sorted((i,j) for i,j in first if i is not None)

@given(counts=st.lists(st.integers(1, 6), min_size=2, max_size=10), pct=st.floats(0.01, 0.99), seed=st.integers(0, 99))
@settings(max_examples=60, **BUSY)
def test_shares_of_any_groups(folder, counts, pct, seed):
    "Groups of given sizes, without images: the sum drawn is the best of all subsets"
    from ssd_fastai.splits import _draw_sizes
    want = pct*sum(counts)
    got  = sum(n*k for n,k in _draw_sizes(counts, want).items())
    best = min(abs(sum(c)-want) for k in range(1, len(counts)) for c in itertools.combinations(counts, k))
    assert abs(got-want) <= best+1e-9 and 0 < got < sum(counts)

def test_every_class_is_learned(folder):
    "A class with one image goes to training, whatever the seed; where that cannot be, a line says so, and training goes on"
    from ssd_fastai.splits import split_records
    from ssd_fastai.readers import make_vocab
    recs = [record(folder, f'{k}_0', ['common'] if k else ['rare','common']) for k in range(10)]
    for seed in range(30):
        train,valid = split_records(recs, 0.5, seed, verbose=False)
        assert 'rare' in train.counts and make_vocab(train, valid) == ['#na#','common','rare']

def test_what_is_said(folder, capsys):
    from ssd_fastai.splits import split_records
    recs = [record(folder, f'{k}_{v}', [f'c{k}']) for k in range(5) for v in (0,1)]
    train,valid = split_records(recs, 0.2)
    said = capsys.readouterr().out
    assert said.startswith('validation: 2 of 10 images drawn with seed 42; 10 near-duplicates kept together')
    assert 'it has no object of 4 classes' in said and 'training has no object of 1 class' in said and said.count('\n')==1
    split_records(recs, 0.2, verbose=False)
    assert capsys.readouterr().out==''

def test_moved_data_are_divided_alike(folder, tmp_path):
    "The same files in another folder, and named by relative paths"
    from ssd_fastai.splits import split_records
    shutil.copytree(folder, tmp_path/'a'/'b')
    names = [f'{k}_{v}' for k in range(10) for v in (0,3)]
    here  = split_records([record(folder, o) for o in names], 0.3, verbose=False)[1]
    there = split_records([record(tmp_path/'a'/'b', o) for o in names], 0.3, verbose=False)[1]
    old   = os.getcwd()
    os.chdir(tmp_path)
    try: rel = split_records([record(Path('a/b'), o) for o in names], 0.3, verbose=False)[1]
    finally: os.chdir(old)
    assert [o.file.name for o in here] == [o.file.name for o in there] == [o.file.name for o in rel]

def test_fewer_objects_than_images(folder):
    "Images without objects, and none with any"
    from ssd_fastai.splits import split_records
    train,valid = split_records([record(folder, f'{k}_0') for k in range(10)], 0.2, verbose=False)
    assert (len(train), len(valid), train.counts) == (8, 2, Counter())

def test_window_of_one_file_stay_together(folder):
    from dataclasses import replace
    from ssd_fastai.splits import split_records, write_list
    from ssd_fastai.tiles import tile_records
    recs  = [record(folder, f'{k}_0', ['a']) for k in range(6)]
    tiled = tile_records(recs, 20, 0.2)
    train,valid = split_records(tiled, 0.3, verbose=False)
    assert not {o.file for o in train} & {o.file for o in valid} and len(tiled)==24
    write_list(folder/'valid.txt', valid)
    assert len((folder/'valid.txt').read_text().splitlines()) == len({o.file for o in valid})

@pytest.mark.parametrize('split', ['train','all'])
def test_a_list_is_read_as_it_was_written(tmp_path, split):
    from ssd_fastai.readers import read_split
    from ssd_fastai.splits import read_train_valid, write_list
    from ssd_fastai.synth import synth_voc
    data = synth_voc(tmp_path/'shapes', n=30, seed=1)
    train,valid = read_train_valid(data, split, valid_pct=0.25, verbose=False)
    for part,file in ((train,'train.txt'), (valid,'valid.txt')):
        write_list(tmp_path/file, part)
        again = read_split(data, str(tmp_path/file), verbose=False)
        assert [(o.file,o.names,o.boxes.tolist()) for o in again] == [(o.file,o.names,o.boxes.tolist()) for o in part]

def test_broken_image_is_one_line(folder, tmp_path):
    from ssd_fastai.splits import split_records
    shutil.copytree(folder, tmp_path/'x')
    (tmp_path/'x/3_0.png').write_bytes((tmp_path/'x/3_0.png').read_bytes()[:60])
    with pytest.raises(ValueError) as e: split_records([record(tmp_path/'x', f'{k}_0') for k in range(6)])
    assert '3_0.png' in str(e.value) and '\n' not in str(e.value)
