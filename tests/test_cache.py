"Images that were kept give the same batches as those that are decoded anew: in memory, on disk, with loading processes, of windows; and files that changed are noticed."
import multiprocessing, os, pickle
from pathlib import Path

import numpy as np, pytest, torch
from PIL import Image
from fastai.vision.all import set_seed
from torchvision.transforms import v2

from ssd_fastai import cache as rooms
from ssd_fastai.augment import BatchAugment
from ssd_fastai.cache import DiskCache, RamCache, free_memory
from ssd_fastai.data import DetectionDataLoaders
from ssd_fastai.readers import read_voc
from ssd_fastai.synth import synth_voc

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp('cache')/'shapes'
    synth_voc(path, n=24, seed=1)
    return path

@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path/'ssd_fastai'/'images'

def make(data, **kw): return DetectionDataLoaders.from_voc(data, **{**dict(size=(64, 80), bs=4, num_workers=0, device='cpu', verify=False), **kw})

def batches(dls, epochs=2):
    "All numbers of some epochs of training and of one validation"
    set_seed(7)
    for dl in dls.loaders: dl.rng.seed(7)
    res = [[o.as_subclass(torch.Tensor).float() for o in b] for _ in range(epochs) for b in dls.train]
    return res + [[o.as_subclass(torch.Tensor).float() for o in b] for b in dls.valid]

def same(a, b):
    assert len(a)==len(b)
    for x,y in zip(a, b):
        for o,p in zip(x, y): assert torch.equal(o, p)

@pytest.mark.parametrize('method', ('squish', 'pad'))
@pytest.mark.parametrize('kw', (dict(), dict(augment=None), dict(augment=[v2.RandomHorizontalFlip()]), dict(tile=100), dict(augment=BatchAugment(1., 2., 1., .3))), ids=str)
def test_same_batches(data, home, method, kw):
    plain = batches(make(data, method=method, cache=None, **kw))
    for where in ('ram', 'disk', 'auto', 'disk'): same(plain, batches(make(data, method=method, cache=where, **kw)))

def test_loading_processes_share(data, home):
    dls = make(data, cache='ram', num_workers=2, augment=None)
    store = next(o.cache for o in dls.train.dataset.tls[0].tfms.fs if hasattr(o, 'cache'))
    assert sum(store.mem[:len(store.places)])<=1         # fastai tries the first
    b = batches(dls, 1)
    assert sum(store.mem[:len(store.places)])>=16        # this process has what the others filled
    same(b, batches(make(data, cache=None, augment=None), 1))

def test_a_changed_image_is_noticed_on_disk(data, home, tmp_path):
    import shutil
    copy = tmp_path/'copy'; shutil.copytree(data, copy)
    first = batches(make(copy, cache='disk', augment=None), 0)
    o = read_voc(copy, 'val')[0]
    Image.new('RGB', o.size[::-1], (1, 200, 3)).save(o.file)
    second = batches(make(copy, cache='disk', augment=None), 0)
    assert not torch.equal(first[0][0], second[0][0])
    same(second, batches(make(copy, cache=None, augment=None), 0))
    for where in ('disk', 'ram', None):
        Image.new('RGB', o.size[::-1]).save(o.file)
        dls = make(copy, cache=where)
        Image.new('RGB', (33, 44)).save(o.file)
        with pytest.raises(ValueError, match='read the data again if a file was changed'): batches(dls, 0)

def test_an_exported_learner_takes_no_pixels_along(data):
    dls = make(data, cache='ram')
    batches(dls, 1)
    assert len(pickle.dumps(dls.new_empty()))<200_000
    empty = pickle.loads(pickle.dumps(dls.new_empty()))
    dl = empty.test_dl(read_voc(data, 'val'), with_labels=True)
    same([[o.as_subclass(torch.Tensor).float() for o in b] for b in dl], batches(dls, 0))

def child(store, file): store.get(file, (), lambda: np.full((2, 3, 3), 9, np.uint8))

@pytest.mark.skipif(not hasattr(os, 'memfd_create'), reason='no memory file on this system')
@pytest.mark.parametrize('how', ('fork', 'spawn', 'forkserver'))
def test_memory_is_shared_with_a_process(how):
    store = RamCache({('a', ()): (2, 3), ('b', ()): (2, 3)})
    p = multiprocessing.get_context(how).Process(target=child, args=(store, 'b'))
    p.start(); p.join(60)
    assert p.exitcode==0 and store.get('b', (), lambda: 1/0).tolist()==np.full((2, 3, 3), 9).tolist()
    assert store.get('a', (), lambda: np.zeros((2, 3, 3), np.uint8)).sum()==0

def many(folder, file, n):
    store = DiskCache(folder)
    for i in range(n): assert store.get(file, (i,), lambda: np.full((20, 30, 3), i, np.uint8)).min()==i

def test_several_processes_write_to_one_folder(tmp_path):
    (tmp_path/'a.jpg').write_bytes(b'x')
    ps = [multiprocessing.get_context('fork').Process(target=many, args=(tmp_path/'kept', tmp_path/'a.jpg', 40)) for _ in range(4)]
    for p in ps: p.start()
    for p in ps: p.join(60)
    assert [p.exitcode for p in ps]==[0]*4
    assert len([o for o in (tmp_path/'kept').rglob('*') if o.is_file()])==40

def test_a_full_disk_is_said_once(tmp_path, monkeypatch, capsys):
    (tmp_path/'a.jpg').write_bytes(b'x')
    store = DiskCache(tmp_path/'kept')
    monkeypatch.setattr(rooms, 'write_pixels', lambda *_: False)
    for i in range(3): store.get(tmp_path/'a.jpg', (i,), lambda: np.zeros((1, 1, 3), np.uint8))
    assert capsys.readouterr().out.count('no more can be written there')==1

def test_auto_leaves_memory_to_others(data, monkeypatch, capsys):
    monkeypatch.setattr('ssd_fastai.data.free_memory', lambda: 10_000)
    dls = make(data, cache='auto')
    assert "cache='disk' keeps them" in capsys.readouterr().out
    assert all(o.cache is None for o in dls.train.dataset.tls[0].tfms.fs if hasattr(o, 'cache'))
    assert free_memory() is None or free_memory()>0

def test_images_kept_for_another_size(data):
    dls = make(data, cache=None, augment=None)
    from ssd_fastai.data import sample_tfms
    with pytest.raises(ValueError, match='make new data loaders'): dls.valid.new(after_item=sample_tfms(32, augment=None)).one_batch()

def test_a_large_jpeg(tmp_path):
    "A photograph is decoded reduced: its pixels are near those of the whole, its boxes are the same"
    from ssd_fastai.data import canvas_pixels, squished
    from ssd_fastai.records import GroundTruth
    ys,xs = np.mgrid[:1200, :1600]
    Image.fromarray(np.stack([xs//8, ys//6, (xs//40+ys//40)%2*200], -1).astype(np.uint8)).save(tmp_path/'a.jpg', quality=95)
    o = GroundTruth([[80, 90, 800, 700]], ['x'], size=(1200, 1600), file=tmp_path/'a.jpg')
    diff = np.abs(canvas_pixels(o, (140, 180)).astype(int) - squished(Image.open(o.file), (140, 180)))
    assert diff.mean()<4 and np.median(diff)<=1           # all of it at the edges of the squares
