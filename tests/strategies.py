"""What people and accidents feed to this package: inputs, sound and damaged, and what must hold for each of them.

A kind is a strategy that draws an input and a check that takes it. A check gives 'correct' where the result was compared with something
independent, and 'refused' where one `ValueError` of one line came back; anything else is an error. tests/test_fuzz.py draws a few of
each, benchmarks/fuzz.py a hundred thousand.
"""
import contextlib, csv, io, itertools, json, math, os, random, re, shutil, signal, struct, sys, time, warnings, zlib
from collections import namedtuple
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np, pandas as pd, torch
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st
from PIL import Image, ImageOps

from ssd_fastai.boxes import (box_iou, clip_boxes, px_to_unit, px_to_voc, to_cxcywh, to_xyxy, unit_to_px, voc_to_px)
from ssd_fastai.classic import TanhCoder
from ssd_fastai.results import read_detections
from ssd_fastai.cli import ssd_check, ssd_eval, ssd_export, ssd_predict, ssd_train
from ssd_fastai.doctor import check_dataset
from ssd_fastai.files import SEAL_MARK, load_detector, seal
from ssd_fastai.images import MAX_PIXELS, image_size, load_image
from ssd_fastai.match import BoxCoder
from ssd_fastai.metrics import evaluate_detections
from ssd_fastai.nms import Thresholds, suppress
from ssd_fastai.formats import segment_box
from ssd_fastai.readers import read_coco, read_df, read_split, read_voc, verify_pixels
from ssd_fastai.records import Detections, GroundTruth
from ssd_fastai.resize import Fit
from ssd_fastai.synth import synth_voc
import ssd_fastai.formats # adds from_coco, to_voc and their like to the records

GOLDEN = Path(__file__).resolve().parent/'golden'
Kind   = namedtuple('Kind', 'inputs check share few') # strategy, check, how many in the long check, how many in the short one

# --- running

class Late(BaseException):
    "An input took too long. No `Exception`: no handler on the way may take it for an error of its own"

@contextlib.contextmanager
def limit(seconds=30):
    "`Late` where the body takes longer"
    def late(*_): raise Late(f'over {seconds} s')
    was = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try: yield
    finally: signal.setitimer(signal.ITIMER_REAL, 0); signal.signal(signal.SIGALRM, was)

def try_out(kind, n, room, at=0, tell=lambda res,secs: None):
    "Draw `n` inputs of a kind and check each; `at` seeds them. Raises what the smallest failing input raised"
    @settings(max_examples=n, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
    @seed(at)
    @given(kind.inputs)
    def one(x):
        start = time.perf_counter()
        with limit(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            res = kind.check(x, room)
        assert res in ('correct','refused'), res
        tell(res, time.perf_counter()-start)
    one()

def attempt(f, *args, names=()):
    "(what `f` returns, None), or (None, the one line of its `ValueError`), which holds one of `names`"
    try: return f(*args), None
    except ValueError as e: msg,kind = str(e),type(e)
    assert kind is ValueError, f'{kind.__name__}: {msg}'
    assert msg.strip() and len(msg.splitlines())==1 and len(msg)<12_000, f'no line for a person: {msg[:300]!r}'
    assert not names or any(str(o) in msg for o in names), f'names none of {names}: {msg[:300]}'
    return None, msg

class Room:
    "A folder to work in: two pictures, a drawn VOC set, a detector"
    def __init__(self, path):
        self.path = Path(path)
        for o in ('voc/JPEGImages','voc/Annotations','voc/ImageSets/Main','img/sub','out'): (self.path/o).mkdir(parents=True)
        rng = np.random.default_rng(0)
        pics = {k: Image.fromarray(rng.integers(0, 256, (*hw,3), dtype=np.uint8)) for k,hw in {'a':(30,40), 'turn':(24,32)}.items()}
        exif = Image.Exif(); exif[0x0112] = 6
        for f in (self.voc/'JPEGImages', self.path/'img', self.path/'img/sub'):
            pics['a'].save(f/'a.png'); pics['turn'].save(f/'turn.jpg', exif=exif)
        for k in pics: (self.voc/f'ImageSets/Main/{k}.txt').write_text(f'{k}\n')
        self.n = itertools.count()
        self.model = self.path/'m.safetensors'
        self.model.write_bytes((GOLDEN/'detector.safetensors').read_bytes())
    @property
    def voc(self): return self.path/'voc'
    def data(self):
        "A drawn set of 14 images, drawn on the first call"
        if not (self.path/'shapes').is_dir(): synth_voc(self.path/'shapes', n=14, seed=3, n_classes=3)
        return self.path/'shapes'
    def fresh(self, suffix=''): return self.path/'out'/f'{next(self.n)}{suffix}'

# --- values

BOXED  = dict(a=(30,40), turn=(32,24)) # (height, width), upright
NAMES  = st.sampled_from(['cat','dog','Ünïcode','猫','a b','<&>"','#na#','nan','None','../../x','x'*300,"o'clock",'0','%s{}','cat'])
ODD    = ['', ' ', 'nan', 'NaN', 'inf', '-inf', '1e400', '-1e400', '1e39', '1e30', '-1e9', '9'*400, '1_000', '0x10', '12,5', 'None', 'true',
          '1e-400', '١٢', ' 7 ', '+5', '--5', '5.', '.5', '-0', '\u2212' '5', '1e', '𝟓']
WEIRD  = st.sampled_from([None, True, False, 0, -1, 3, 1.5, 1e308, -1e308, 10**30, 10**400, '', ' ', 'x', '../x.png', '/etc/passwd', 'a.png', 'sub/../a.png',
          'sub/a.png', 'C:\\x.png', '..', '.', 'sub', [], {}, [[]], [1,2,3,4], [5,5,3,3], {'id':1}, math.nan, math.inf, '\ud800', '\0', '1', 'NaN', 'x'*5000, '猫'])

def now_and_then(one_in, odd, usual):
    "`odd` once in so many draws"
    return st.integers(1, one_in).flatmap(lambda i: odd if i==one_in else usual)

def edge(n): return st.one_of(st.integers(-3, n+4), st.floats(-3, n+4, width=32).map(lambda v: round(v, 3)))

@st.composite
def corners(draw, h=30, w=40, one_in=6):
    "x1,y1,x2,y2: mostly with an area in an image of h×w"
    x,y = (sorted(draw(st.lists(edge(n), min_size=2, max_size=2))) for n in (w,h))
    b = [x[0], y[0], x[1], y[1]]
    return draw(now_and_then(one_in, st.permutations(b), st.just(b)))

def rand_boxes(rng, n, h=60, w=80, whole=True):
    "[n,4] with an area, inside"
    xy = [sorted(rng.sample(range(w+1), 2))+sorted(rng.sample(range(h+1), 2)) for _ in range(n)]
    b  = torch.tensor([[a,c,b,d] for a,b,c,d in xy], dtype=torch.float32).reshape(-1,4)
    return b if whole else b*0.97+0.31

def inside(b, h, w):
    "What a reader should make of an object's box at the edges: a box, or None where it should be left out"
    if b[2]<=b[0] or b[3]<=b[1] or b[2]<=0 or b[3]<=0 or b[0]>=w or b[1]>=h: return None
    c = np.float32([max(b[0], 0), max(b[1], 0), min(b[2], w), min(b[3], h)])
    return c if c[2]>c[0] and c[3]>c[1] else None

def number(s):
    "The finite number that a text is, or None"
    if s is None or '_' in s: return None
    try: v = float(s)
    except ValueError: return None
    return v if math.isfinite(v) else None

# --- VOC

@st.composite
def voc_object(draw):
    nums = [draw(now_and_then(40, st.sampled_from(ODD), st.just(str(v)))) for v in draw(corners())]
    return dict(name=draw(now_and_then(30, st.sampled_from(['', ' ', None, '\t cat \n']), NAMES)), nums=nums,
                difficult=draw(st.sampled_from([None,'0','1','1','0','0','','2','true','yes']) if draw(st.integers(0, 9))==9 else st.sampled_from([None,'0','1'])),
                drop=draw(now_and_then(30, st.sampled_from(['bndbox','xmin','ymax','name']), st.none())))

def tag(k, v): return '' if v is None else f'<{k}>{escape(str(v))}</{k}>'

def object_xml(o):
    box = ''.join(tag(k, v) for k,v in zip(('xmin','ymin','xmax','ymax'), o['nums']) if k!=o['drop'])
    name = '' if o['drop']=='name' else tag('name', o['name'])
    return f'<object>{name}{tag("difficult", o["difficult"])}{"" if o["drop"]=="bndbox" else f"<bndbox>{box}</bndbox>"}</object>'

DAMAGE = ['none']*12 + ['cut','flip','insert','double','entity','external','parameter','bomb','dtd','deep','root','encoding','utf16','bom','empty','cdata']
BOMB   = '<!DOCTYPE annotation [<!ENTITY a "ha">' + ''.join(f'<!ENTITY {b} "{f"&{a};"*10}">' for a,b in zip('abcdefghi','bcdefghij')) + ']>'

def damaged(how, text, rng):
    "The bytes of an XML text, damaged in one way"
    raw = text.encode()
    if how=='cut':      return raw[:rng.randrange(len(raw))]
    if how=='flip':     return flipped(raw, rng)
    if how=='insert':   i = rng.randrange(len(raw)); return raw[:i] + rng.choice([b'\0', b'<', b'&', b'\xff', b']]>', b'<object/>', b'&#0;', b'&x;', b'<!--']) + raw[i:]
    if how=='double':   return raw+raw
    if how=='entity':   return b'<!DOCTYPE a [<!ENTITY x "cat">]>' + raw.replace(b'<object>', b'<object><name>&x;</name>')
    if how=='external': return b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + raw.replace(b'<object>', b'<object><name>&x;</name>')
    if how=='parameter':return b'<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/hostname"> %x;]>' + raw
    if how=='bomb':     return (BOMB + text.replace('<object>', '<object><pose>&j;</pose>')).encode()
    if how=='dtd':      return b'<!DOCTYPE annotation SYSTEM "http://example.invalid/voc.dtd">' + raw
    if how=='deep':     return raw.replace(b'</annotation>', b'<a>'*20_000 + b'</a>'*20_000 + b'</annotation>')
    if how=='root':     return raw.replace(b'annotation>', rng.choice([b'html>', b'Annotation>', b'object>']))
    if how=='encoding': return b'<?xml version="1.0" encoding="' + rng.choice([b'ascii', b'utf-7', b'klingon', b'utf-16', b'latin-1', b'rot13', b'utf-32']) + b'"?>' + raw
    if how=='utf16':    return ('<?xml version="1.0" encoding="utf-16"?>'+text).encode('utf-16')
    if how=='bom':      return b'\xef\xbb\xbf'+raw
    if how=='cdata':    return raw.replace(b'cat', b'<![CDATA[cat]]>')
    return {'none':raw, 'empty':b''}[how]

def flipped(raw, rng, n=3):
    raw = bytearray(raw)
    for _ in range(rng.randint(1, n)): raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)

@st.composite
def voc_doc(draw):
    "(which picture, the objects, the stated (height, width) as texts or None, damage, the file's bytes)"
    pic  = draw(st.sampled_from(['a','a','a','turn']))
    size = draw(now_and_then(5, st.sampled_from([None, ('x','3'), ('0','0'), ('-4','9'), ('nan','1'), ('24','32'), ('1e300','7')]), st.just(tuple(map(str, BOXED[pic])))))
    objs = draw(st.lists(voc_object(), max_size=5))
    hw   = '' if size is None else f'<size>{tag("width", size[1])}{tag("height", size[0])}<depth>3</depth></size>'
    text = f'<annotation><folder>VOC</folder>{tag("filename", draw(st.sampled_from(["a.png","../../x.png","/etc/passwd"])))}{hw}{"".join(map(object_xml, objs))}</annotation>'
    how  = draw(st.sampled_from(DAMAGE))
    return pic, objs, size, how, damaged(how, text, random.Random(draw(st.integers(0, 2**32))))

def wanted_voc(o):
    "What a VOC object should become: (x1,y1,x2,y2) as the file says, or None where the file must be refused"
    nums = [number(v) for v in o['nums']]
    name = (o['name'] or '').strip() and o['drop']!='name'
    if not name or o['drop'] or None in nums: return None
    if (o['difficult'] or '').strip().lower() not in ('','0','1','true','yes'): return None
    flat = nums[2]<=nums[0] or nums[3]<=nums[1]
    return nums if flat else [nums[0]-1, nums[1]-1, *nums[2:]]

def check_voc(x, room):
    pic,objs,size,how,raw = x
    (room.voc/f'Annotations/{pic}.xml').write_bytes(raw)
    res,why = attempt(lambda: read_voc(room.voc, pic, verbose=False), names=[f'{pic}.xml'])
    if how in ('entity','external','bomb','parameter'): assert why and ('entit' in why or 'XML' in why), (how, res)
    if how in ('none','bom','dtd','utf16') and pic=='a': return against_wanted(res, why, [wanted_voc(o) for o in objs], size)
    if res is None: return 'refused'
    return accounted(res, len(ElementTree.fromstring(raw).findall('object')))

def against_wanted(res, why, want, size):
    "A reader's result for the picture 'a' against what it should be"
    bad_size = size is not None and None in [number(v) for v in size]
    if None in want or bad_size: assert why, f'read: {res[0].boxes if res else res}'; return 'refused'
    if as_a_whole(why, len(want)): return 'refused'
    assert res is not None, why
    boxes = [o for o in (inside(b, *BOXED['a']) for b in want) if o is not None]
    np.testing.assert_array_equal(res[0].boxes.numpy(), np.float32(boxes).reshape(-1,4))
    return accounted(res, len(want))

def as_a_whole(why, n):
    "Whether `n` boxes were refused since all of them look like something else"
    return n>2 and why is not None and ('between 0 and 1' in why or 'only in that way' in why)

def accounted(res, n):
    "No box lost without a word, none outside"
    assert res.n_boxes+len(res.left_out)==n, f'{res.n_boxes} kept, {len(res.left_out)} left out, {n} in the file'
    for o in res:
        h,w = o.size
        assert len(o.names)==len(o) and (o.boxes>=0).all() and (o.boxes[:,2:]<=torch.tensor([w,h])).all() and (o.boxes[:,2:]>o.boxes[:,:2]).all()
    assert isinstance(res.summary(), str) and len(repr(res).splitlines())==1
    return 'correct'

# --- the doctor on the same files

def check_doctor(x, room):
    pic,objs,size,how,raw = x
    (room.voc/f'Annotations/{pic}.xml').write_bytes(raw)
    other = dict(a='turn', turn='a')[pic]
    (room.voc/f'Annotations/{other}.xml').write_text('<annotation></annotation>')
    report,why = attempt(lambda: check_dataset(room.voc, pic, other, size=64))
    if report is None: return 'refused'
    assert all(o.reason and o.cure and len(str(o).splitlines())==1 for o in report.problems)
    json.dumps(report.to_dict()), str(report)
    read,_ = attempt(lambda: read_voc(room.voc, pic, verbose=False))
    kinds = {o.kind for o in report.problems}
    if read is None: assert kinds & {'unreadable annotation','faulty object','wrong size'}, kinds
    else: assert report.splits[pic]['objects']==read.n_boxes and (not read.left_out or kinds & {'inverted box','empty box','box outside'})
    return 'correct'

# --- COCO

@st.composite
def coco_annotation(draw, i):
    x1,y1,x2,y2 = draw(corners())
    return dict(id=i, image_id=draw(now_and_then(40, WEIRD, st.sampled_from([1,2]))), category_id=draw(now_and_then(40, WEIRD, st.sampled_from([7,9]))),
                bbox=[x1, y1, x2-x1, y2-y1], iscrowd=draw(st.integers(0, 1)))

def places(o, at=()):
    "The path of every part of a JSON value"
    yield at
    for k,v in (o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else ()): yield from places(v, (*at, k))

def altered(doc, path, op, value):
    "A JSON value with the part at `path` taken out, doubled or replaced"
    doc = json.loads(json.dumps(doc))
    if not path: return value
    o = doc
    for k in path[:-1]: o = o[k]
    if op=='drop': del o[path[-1]]
    elif op=='double' and isinstance(o, list): o.append(o[path[-1]])
    else: o[path[-1]] = value
    return doc

@st.composite
def json_file(draw, doc):
    "(the document as meant, or None where it was damaged; the file's bytes)"
    how = draw(st.sampled_from(['none']*4+['alter']*5+['cut','flip','insert','deep','bom','utf16','empty']))
    if how=='alter':
        for _ in range(draw(st.integers(1, 2))):
            doc = altered(doc, draw(st.sampled_from(list(places(doc)))), draw(st.sampled_from(['drop','double','put','put'])), draw(WEIRD))
            if not isinstance(doc, (dict,list)): break
    raw,rng = json.dumps(doc, ensure_ascii=draw(st.booleans())).encode('utf-8', 'surrogatepass'),random.Random(draw(st.integers(0, 2**32)))
    if how=='cut':    raw = raw[:rng.randrange(len(raw))]
    if how=='flip':   raw = flipped(raw, rng)
    if how=='insert': i = rng.randrange(len(raw)); raw = raw[:i]+rng.choice([b'NaN', b'9'*5000, b'\0', b'"', b'\xff', b'1e999', b'\\ud800', b'[', b'}'])+raw[i:]
    if how=='deep':   raw = b'{"images":'+b'['*100_000+b']'*100_000+b'}'
    if how=='bom':    raw = b'\xef\xbb\xbf'+raw
    if how=='utf16':  raw = raw.decode('utf-8', 'replace').encode('utf-16')
    if how=='empty':  raw = b''
    return (doc if how in ('none','bom') else None), raw

@st.composite
def coco_doc(draw):
    doc = dict(images=[dict(id=1, file_name='a.png', height=30, width=40), dict(id=2, file_name=draw(st.sampled_from(['sub/a.png','./sub/../sub/a.png','turn.jpg'])))],
               categories=[dict(id=7, name=draw(NAMES)), dict(id=9, name='other')],
               annotations=[draw(coco_annotation(i)) for i in range(1, draw(st.integers(0, 5))+1)])
    return draw(json_file(doc))

def check_coco(x, room):
    meant,raw = x
    file = room.path/'c.json'
    file.write_bytes(raw)
    res,why = attempt(lambda: read_coco(room.path/'img', file, verbose=False), names=['c.json','a.png','turn.jpg','img'])
    if meant is not None: return wanted_coco(res, why, meant)
    if res is None: return 'refused'
    for o in res: assert Path(os.path.abspath(o.file)).is_relative_to(os.path.abspath(room.path/'img')), o.file
    return accounted(res, len(json.loads(raw.decode('utf-8-sig'))['annotations']))

def wanted_coco(res, why, d):
    "A reader's result against a document whose only faults may be ids"
    plain = lambda k,ok: all(type(o[k]) is int and o[k] in ok for o in d['annotations'])
    if not (plain('image_id', (1,2)) and plain('category_id', (7,9))): assert why, 'a wrong id was read'; return 'refused'
    if as_a_whole(why, len(d['annotations'])): return 'refused'
    assert res is not None, why
    for o in res:
        if o.file.name!='a.png': continue
        mine = [a['bbox'] for a in d['annotations'] if a['image_id']==o.image_id]
        want = [b for b in (inside([x, y, x+w, y+h], *o.size) for x,y,w,h in mine) if b is not None]
        np.testing.assert_array_equal(o.boxes.numpy(), np.float32(want).reshape(-1,4))
    return accounted(res, len(d['annotations']))

# --- data frames

ROW = 'fname label x1 y1 x2 y2 difficult'.split()

@st.composite
def df_row(draw):
    name,label = draw(now_and_then(25, WEIRD, st.sampled_from(['a.png','sub/a.png','turn.jpg']))),draw(now_and_then(25, WEIRD, NAMES))
    row = [name, label, *draw(corners()), draw(st.sampled_from([0, 1, True, None]))]
    if draw(st.integers(0, 25))==0: row[draw(st.integers(2, 6))] = draw(WEIRD)
    return row if draw(st.integers(0, 9)) else [row[0], None, math.nan, None, None, math.nan, None]

@st.composite
def frame(draw):
    rows = draw(st.lists(df_row(), max_size=5))
    df = pd.DataFrame(rows, columns=ROW, dtype=draw(st.sampled_from([None, object])))
    if draw(st.integers(0, 15))==0: df = df.drop(columns=draw(st.sampled_from(ROW)))
    if draw(st.integers(0, 15))==0: df = pd.concat([df, df])
    if draw(st.integers(0, 15))==0: df = df.astype(draw(st.sampled_from(['string','str','category'])), errors='ignore')
    return df

def check_df(df, room):
    res,why = attempt(lambda: read_df(df, room.path/'img', verbose=False), names=['row','data frame','a.png'])
    if res is None: return 'refused'
    for o in res: assert Path(os.path.abspath(o.file)).is_relative_to(os.path.abspath(room.path/'img')), o.file
    empty = df.label.isna() | (df.label.astype(object).map(lambda o: isinstance(o, str) and not o.strip()))
    return accounted(res, int((~empty).sum()))

# --- there and back

@st.composite
def found(draw, most=6):
    "`Detections` in pixels, with any names that XML can hold"
    n,rng = draw(st.integers(0, most)),random.Random(draw(st.integers(0, 2**32)))
    h,w = draw(st.integers(2, 200)),draw(st.integers(2, 200))
    vocab = ['#na#', *draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4, unique=True).filter(lambda o: '#na#' not in o))]
    b = rand_boxes(rng, n, h, w)
    return Detections(b if rng.random()<0.5 else b*0.9+0.05, [rng.randrange(1, len(vocab)) for _ in b], [rng.randint(0, 10**6)/10**6 for _ in b], vocab, (h,w), file='a.png')

def alike(a, b, tol=2e-4):
    assert a.size==b.size and a.labels.tolist()==b.labels.tolist() and a.names==b.names
    torch.testing.assert_close(a.boxes, b.boxes, atol=tol, rtol=1e-5)
    torch.testing.assert_close(a.scores, b.scores)

def check_back(d, room):
    "`Detections` through COCO's records, a data frame and VOC's XML, each through text"
    alike(d, Detections.from_coco(json.loads(json.dumps(d.to_coco(3))), d.vocab, d.size))
    table = d.to_df().to_csv(index=False)
    if not any({'\r','\n','\0'} & {*o} for o in d.vocab) and all(ord(c)<0xd800 or ord(c)>0xdfff for o in d.vocab for c in o):
        alike(d, Detections.from_df(pd.read_csv(io.StringIO(table), keep_default_na=False, dtype={'label':str}), d.vocab, d.size))
    xml,why = attempt(d.to_voc)
    if xml is None: return 'refused'
    alike(d, Detections.from_voc(xml, d.vocab, file='a.png'))
    return 'correct'

@st.composite
def truth(draw):
    rng = random.Random(draw(st.integers(0, 2**32)))
    b = rand_boxes(rng, draw(st.integers(0, 8)), *BOXED['a'])
    b = b[((b[:,2:]-b[:,:2])>=2).all(1)] # in VOC's XML one pixel has xmin = xmax, which is left out
    return GroundTruth(b if rng.random()<0.5 else b*0.9+0.05, [draw(NAMES) for _ in b], [rng.random()<0.2 for _ in b], size=BOXED['a'])

def check_readers(t, room):
    "One truth written in three formats, read by three readers"
    objs = [dict(name=n, nums=[f'{v:.6f}' for v in b], difficult=int(d), drop=None) for n,b,d in zip(t.names, px_to_voc(t.boxes).tolist(), t.difficult.tolist())]
    (room.voc/'Annotations/a.xml').write_text('<annotation>'+''.join(map(object_xml, objs))+'</annotation>', encoding='utf-8')
    cats = {n:i for i,n in enumerate(sorted({*t.names}))}
    (room.path/'t.json').write_text(json.dumps(dict(images=[dict(id=0, file_name='a.png')], categories=[dict(id=i, name=n) for n,i in cats.items()],
        annotations=[dict(id=k, image_id=0, category_id=cats[n], bbox=[x1, y1, x2-x1, y2-y1], ignore=int(d))
                     for k,(n,(x1,y1,x2,y2),d) in enumerate(zip(t.names, t.boxes.tolist(), t.difficult.tolist()))])))
    df = pd.DataFrame([['a.png', n, *b, d] for n,b,d in zip(t.names, t.boxes.tolist(), t.difficult.tolist())] or [['a.png']+[None]*6], columns=ROW)
    for o in (read_voc(room.voc, 'a', False), read_coco(room.path/'img', room.path/'t.json', False), read_df(df, room.path/'img', False)):
        torch.testing.assert_close(o[0].boxes, t.boxes, atol=1e-4, rtol=1e-5)
        assert o[0].names==t.names and o[0].difficult.tolist()==t.difficult.tolist() and o[0].size==t.size and not o.left_out
    return 'correct'

# --- boxes

SIDES = st.integers(1, 5000)

@st.composite
def box_sets(draw):
    num = st.floats(-5000, 5000, width=32)
    f = lambda: torch.tensor(draw(st.lists(st.lists(num, min_size=4, max_size=4), max_size=4))).reshape(-1,4)
    return f(), f(), (draw(SIDES), draw(SIDES))

def check_boxes(x, room):
    a,b,size = x
    iou = box_iou(a, b)
    assert iou.shape==(len(a),len(b)) and (iou>=0).all() and (iou<=1).all() and torch.equal(iou, box_iou(b, a).T)
    clipped = clip_boxes(a, size)
    assert torch.equal(clipped, clip_boxes(clipped, size)) and (clipped>=0).all() and (clipped<=torch.tensor([*size[::-1]]*2)).all()
    sound = (a[:,2:]>a[:,:2]).all(1)
    assert torch.allclose(box_iou(a, a).diagonal()[sound & ((a[:,2:]-a[:,:2]).prod(1)>1e-30)], torch.tensor(1.))
    for there,back in ((to_cxcywh, to_xyxy), (voc_to_px, px_to_voc), (lambda o: px_to_unit(o, size), lambda o: unit_to_px(o, size))):
        torch.testing.assert_close(back(there(a)), a, atol=5e-3, rtol=1e-5)
    return 'correct'

def plain(x): return x if isinstance(x, (int,float)) else math.nan

def check_odd_boxes(x, room):
    "Whatever is given as boxes: `GroundTruth` and `Detections` hold finite [N,4], or say in a line what is wrong"
    boxes,names,size = x
    t,why = attempt(lambda: GroundTruth(boxes, names, size=size))
    d,_   = attempt(lambda: Detections(boxes, [1]*len(names), [0.5]*len(names), ['#na#','a'], size))
    if t is None: return 'refused'
    assert t.boxes.shape==(len(names),4) and t.boxes.isfinite().all() and t.boxes.dtype==torch.float32 and len(d)==len(t)
    return 'correct'

ODD_BOXES = st.tuples(st.one_of(st.lists(st.lists(st.one_of(st.floats(), st.integers(-10, 10**40)), min_size=4, max_size=4), max_size=3), st.lists(WEIRD, max_size=4), WEIRD),
                      st.lists(NAMES, max_size=3), st.one_of(st.tuples(SIDES, SIDES), WEIRD))

@st.composite
def fits(draw):
    return (draw(SIDES), draw(SIDES)), (draw(st.integers(1, 600)), draw(st.integers(1, 600))), draw(st.sampled_from(['squish','pad'])), draw(st.integers(0, 2**32))

def check_fit(x, room):
    "Pixels to the unit frame and back, the picture's own corners inside the target"
    orig,target,method,n = x
    fit,b = Fit(orig, target, method),rand_boxes(random.Random(n), 4, orig[0]+1, orig[1]+1)
    _,_,h,w = fit.inner
    frame = max(target[0]*orig[0]/h, target[1]*orig[1]/w) # longer side of the target in the image's pixels: float32 is coarser where it is large
    torch.testing.assert_close(fit.to_px(fit.to_unit(b)), b, atol=1e-3+frame*5e-7, rtol=1e-4)
    whole = fit.to_unit([[0, 0, orig[1], orig[0]]])
    assert (whole>=-1-1e-4).all() and (whole<=1+1e-4).all() and (whole[0,2:]>whole[0,:2]).all()
    top,left,h,w = fit.inner
    assert 0<=top and 0<=left and h>=1 and w>=1 and top+h<=target[0] and left+w<=target[1]
    if orig[0]*orig[1]<10_000: assert fit.image(Image.new('RGB', orig[::-1])).size==target[::-1]
    return 'correct'

@st.composite
def coded(draw):
    rng,n = np.random.default_rng(draw(st.integers(0, 2**32))),draw(st.integers(1, 6))
    c,wh = rng.uniform(-1, 1, (n,2)),np.exp(rng.uniform(-5, .7, (n,2)))
    return draw(st.sampled_from(['variance','tanh'])), torch.tensor(np.concatenate([c, wh], 1), dtype=torch.float32), torch.tensor(rng.uniform(-1, 1, (n,4)), dtype=torch.float32)

def check_coder(x, room):
    "Offsets to boxes and back to the same offsets, inside the reach of the encoding"
    kind,anchors,t = x
    coder,cells = BoxCoder() if kind=='variance' else TanhCoder(),torch.full_like(anchors[:,:2], 0.25)
    t = t*(3 if kind=='variance' else 1.5)
    boxes = coder.decode(t, anchors, cells)
    assert boxes.isfinite().all() and (boxes[:,2:]>boxes[:,:2]).all()
    again = coder.decode(coder.encode(boxes, anchors, cells), anchors, cells)
    torch.testing.assert_close(again, boxes, atol=2e-4, rtol=2e-3)
    return 'correct'

# --- suppression

@st.composite
def scored(draw):
    rng = random.Random(draw(st.integers(0, 2**32)))
    B,A,K = draw(st.integers(1, 2)),draw(st.integers(0, 14)),draw(st.integers(1, 3))
    boxes  = torch.stack([rand_boxes(rng, A, 12, 12) for _ in range(B)])
    scores = torch.tensor([[[rng.randint(0, 32)/32 for _ in range(K)] for _ in range(A)] for _ in range(B)]).reshape(B, A, K)
    per = st.sampled_from([None, 1, 2, 5])
    return boxes, scores, Thresholds(draw(st.sampled_from([0., .25, .5, 1.])), draw(st.sampled_from([0., .25, .5, .75, 1.])), draw(per), draw(per))

def greedy(boxes, scores, t):
    "Suppression of one image in plain loops, with `Thresholds` t: rows (box, label, score)"
    def iou(a, b):
        inter = max(0, min(a[2],b[2])-max(a[0],b[0]))*max(0, min(a[3],b[3])-max(a[1],b[1]))
        return inter/((a[2]-a[0])*(a[3]-a[1])+(b[2]-b[0])*(b[3]-b[1])-inter)
    kept = []
    todo = sorted((-s, i, k) for i,row in enumerate(scores) for k,s in enumerate(row) if s>t.score)
    for s,i,k in todo:
        if all(iou(boxes[i], b)<=t.iou for b,l,_ in kept if l==k+1): kept.append((boxes[i], k+1, -s))
    for key,most in ((lambda o: o[1], t.max_per_class), (lambda o: 0, t.max_per_image)):
        if most is not None: kept = [o for n,o in enumerate(kept) if sum(key(p)==key(o) for p in kept[:n])<most]
    return kept

def check_suppress(x, room):
    boxes,scores,thresholds = x
    got = suppress(boxes, scores, thresholds)
    for (b,l,s),bs,ss in zip(got, boxes.tolist(), scores.tolist()):
        assert list(zip(b.tolist(), l.tolist(), s.tolist()))==greedy(bs, ss, thresholds)
    moved = suppress(boxes, scores, thresholds, vote=0.6)
    for (b,l,s),(b0,l0,s0),bs,ss in zip(moved, got, boxes, scores):
        assert torch.equal(l, l0) and torch.equal(s, s0)
        for box,k,t,was in zip(b, l, s, b0):
            some = [i for i in range(len(bs)) if 2*ss[i,k-1]>=t and box_iou(bs[i][None], was[None])>=0.6]
            w = ss[some,k-1]**2
            assert torch.allclose(box, (w[:,None]*bs[some]).sum(0)/w.sum(), atol=1e-3)
    return 'correct'

# --- evaluation

@st.composite
def judged(draw):
    "Truths and detections of a few images, many of the detections near an object"
    rng,n = random.Random(draw(st.integers(0, 2**32))),draw(st.integers(1, 4))
    vocab,truths,dets = ['#na#','a','b'],[],[]
    for _ in range(n):
        b = rand_boxes(rng, rng.randint(0, 4))
        t = GroundTruth(b, [rng.choice('ab') for _ in b], [rng.random()<.2 for _ in b], [rng.random()<.1 for _ in b], size=(60,80))
        d = torch.cat([b[[i for i in range(len(b)) if rng.random()<.7]], rand_boxes(rng, rng.randint(0, 3))])
        d = d + torch.tensor([[rng.choice([0, 0, 1, 2]) for _ in range(4)] for _ in d]).reshape(-1,4)
        truths.append(t); dets.append(Detections(d, [rng.randint(1, 2) for _ in d], [rng.randint(0, 20)/20 for _ in d], vocab, (60,80)))
    return dets, truths, vocab, rng.sample(range(n), n)

def check_evaluation(x, room):
    dets,truths,vocab,order = x
    ev,other = evaluate_detections(dets, truths, vocab),evaluate_detections([dets[i] for i in order], [truths[i] for i in order], vocab)
    for k,row in ev.rows.items():
        for form in ('voc07','voc12','coco'):
            v,w = row[form],other.rows[k][form]
            assert (v!=v and w!=w and not row['objects']) or (0<=v<=1+1e-9 and abs(v-w)<1e-9), (k, form, v, w)
    assert sum(o['objects']+o['difficult'] for o in ev.rows.values())==sum(map(len, truths))
    if any(len({*map(tuple, t.boxes.tolist())})<len(t) for t in truths): return 'correct' # of two objects in one place VOC's rule finds one
    best = evaluate_detections([Detections(t.boxes, t.labels(vocab), torch.ones(len(t)), vocab, t.size) for t in truths], truths, vocab)
    assert all(abs(o[f]-1)<1e-9 for o in best.rows.values() if o['objects'] for f in ('voc07','voc12','coco') if f!='coco' or not o['difficult'])
    return 'correct'

# --- images

def huge_png(h, w, raw=b''):
    "A PNG that says it is so large"
    part = lambda k,d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k+d))
    return b'\x89PNG\r\n\x1a\n' + part(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0)) + part(b'IDAT', zlib.compress(bytes(100))) + part(b'IEND', b'')

def huge_gif(h, w): return b'GIF89a' + struct.pack('<HH', w, h) + b'\x80\0\0' + bytes(6) + b',' + bytes(4) + struct.pack('<HH', w, h) + b'\0\x02\x02L\x01\0;'
def huge_bmp(h, w): return b'BM' + struct.pack('<IHHI', 54, 0, 0, 54) + struct.pack('<IiiHHIIiiII', 40, w, h, 1, 24, 0, 0, 0, 0, 0, 0)

FORMATS = [('PNG',m) for m in ('RGB','L','RGBA','LA','P','1','I;16')] + [('JPEG',m) for m in ('RGB','L','CMYK')] + [('GIF','P'), ('GIF','L'), ('BMP','RGB'), ('BMP','1'), ('TIFF','RGB'),
           ('TIFF','CMYK'), ('TIFF','I;16'), ('TIFF','F'), ('TIFF','I'), ('TIFF','LAB'), ('WEBP','RGB'), ('WEBP','RGBA'), ('PPM','RGB'), ('ICO','RGB'), ('TGA','RGB'), ('PCX','RGB'), ('JPEG2000','RGB')]
Shot = namedtuple('Shot', 'fmt mode h w orient ext how n')

@st.composite
def shots(draw):
    fmt,mode = draw(st.sampled_from(FORMATS))
    side = st.sampled_from([1, 2, 3, 7, 16, 33, 64])
    return Shot(fmt, mode, draw(side), draw(side), draw(st.sampled_from([0, 0, *range(1, 10), 255])), draw(st.sampled_from(['.jpg','.png','.gif','.tif','','.JPG','.webp'])),
                draw(st.sampled_from(['none']*5+['cut','cut','flip','flip','insert','many','empty','text','folder','huge','huge','xml','twice'])), draw(st.integers(0, 2**32)))

def picture(s):
    rng = np.random.default_rng(s.n)
    a = rng.integers(0, 256, (s.h,s.w,3), dtype=np.uint8)
    im = Image.fromarray(a)
    if s.mode=='I;16': return Image.fromarray((a[...,0].astype(np.uint16)<<8) + 77)
    if s.mode in ('F','I'): return im.convert('L').convert(s.mode)
    if s.mode=='LAB': return Image.merge('LAB', im.split())
    return im.quantize(16) if s.mode=='P' else im.convert(s.mode)

def shot_bytes(s):
    rng,f,im = random.Random(s.n),io.BytesIO(),picture(s)
    exif = Image.Exif(); exif[0x0112] = s.orient
    kw = dict(exif=exif) if s.orient and s.fmt in ('PNG','JPEG','WEBP','TIFF') else {}
    if s.how=='many' and s.fmt in ('GIF','TIFF','WEBP','PNG'): kw.update(save_all=True, append_images=[im, im.rotate(90)])
    if s.how=='huge':
        h,w = rng.choice([(MAX_PIXELS,2), (20_000,20_000), (10_001,10_000), (2**31-1,2**31-1), (65_535,65_535)])
        if h>65_535: return huge_png(h, w)
        return rng.choice([huge_png, huge_gif, huge_bmp])(h, w)
    try: im.save(f, s.fmt, **kw)
    except (OSError,ValueError): f = io.BytesIO(); im.save(f, 'TIFF') # some formats cannot hold so small a picture
    raw = f.getvalue()
    if s.how=='cut':    raw = raw[:rng.randrange(len(raw))]
    if s.how=='flip':   raw = flipped(raw, rng, 6)
    if s.how=='insert': i = rng.randrange(len(raw)); raw = raw[:i]+rng.randbytes(rng.randint(1, 50))+raw[i:]
    if s.how=='twice':  raw = raw+raw
    return {'empty':b'', 'text':b'not an image at all\n'*5, 'xml':b'<svg xmlns="http://www.w3.org/2000/svg"/>'}.get(s.how, raw)

def check_image(s, room):
    file = room.path/f'shot{s.ext}'
    if file.is_dir(): file.rmdir()
    if s.how=='folder': file.unlink(missing_ok=True); file.mkdir()
    else: file.write_bytes(shot_bytes(s))
    size,no_size = attempt(image_size, file, names=[file.name])
    im,why = attempt(load_image, file, names=[file.name])
    if s.how=='huge': assert why and no_size and 'refused before decoding' in why, why
    if s.how in ('folder','empty','text','xml'): assert why and no_size
    if im is None: assert s.how!='none' or s.mode in ('F','I','LAB') or s.fmt in ('PCX','ICO','TGA','JPEG2000'), f'a sound image is refused: {why}'; return 'refused'
    assert im.mode=='RGB' and size==(im.height, im.width)
    if s.how=='none' and s.mode=='RGB' and s.fmt in ('PNG','BMP','PPM','TIFF'): # without loss: turned as Pillow turns them
        with Image.open(file) as raw: want = ImageOps.exif_transpose(raw)
        assert np.array_equal(np.asarray(im), np.asarray(want))
    return 'correct'

@st.composite
def arrays(draw):
    shape = draw(st.sampled_from([(5,7), (5,7,3), (5,7,4), (5,7,1), (3,5,7), (1,5,7), (4,5,7), (5,7,2), (0,7,3), (2,5,7,3), (5,), (), (5,0,3), (1,1,3), (3,3,3)]))
    dtype = draw(st.sampled_from(['uint8','uint8','float32','float64','int64','bool','uint16','float16']))
    a = np.random.default_rng(draw(st.integers(0, 99))).random(shape)*draw(st.sampled_from([0, 1, 1, 255, -1, math.nan, math.inf]))
    with np.errstate(all='ignore'): a = np.asarray(np.nan_to_num(a, nan=3, posinf=9) if dtype[0]!='f' else a).astype(dtype)
    return torch.from_numpy(a) if dtype!='uint16' and draw(st.booleans()) else a

def check_array(a, room):
    im,why = attempt(load_image, a)
    if im is None: return 'refused'
    hw = a.shape[-2:] if isinstance(a, torch.Tensor) else a.shape[:2]
    assert im.mode=='RGB' and im.size==tuple(hw)[::-1] and a.ndim in (2,3)
    x = np.asarray(a if not isinstance(a, torch.Tensor) else a[None] if a.ndim==2 else a)
    if isinstance(a, torch.Tensor): x = x.transpose(1,2,0)
    elif x.ndim==2: x = x[...,None]
    want = x.astype(float)*(1 if x.dtype==np.uint8 else 255)
    assert np.abs(np.asarray(im, float)-(want[...,:3] if x.shape[-1]>1 else want.repeat(3, 2))).max()<=0.51
    return 'correct'

# --- lists of a split, and names that lead elsewhere

LINE = now_and_then(5, st.sampled_from(['a.png','a 1','turn -1','../JPEGImages/a','/etc/passwd','..','.','a/../a','a\\b','b','','  ','\ufeffa','A','a\0','猫','x'*400,'a;rm','*','%61','~']), st.sampled_from(['a','turn']))

def check_split(x, room):
    lines,name,raw = x
    for k in BOXED: (room.voc/f'Annotations/{k}.xml').write_text('<annotation></annotation>')
    (room.voc/'ImageSets/Main/s.txt').write_bytes('\n'.join(lines).encode('utf-8')+raw)
    res,why = attempt(lambda: read_voc(room.voc, name, verbose=False), names=['s.txt','split',room.voc, '.xml'])
    if res is None: return 'refused'
    pics = room.voc/'JPEGImages'
    assert all(o.file.parent==pics and o.file.is_file() for o in res) and len({o.file for o in res})==len(res)
    if name=='s': assert len(res)+len([o for o in res.notes if 'more than once' in o.why])==len([o for o in lines if o.strip()]) or raw
    return 'correct'

SPLITS = st.tuples(st.lists(LINE, max_size=4), now_and_then(4, st.sampled_from(['../Main/s','s.txt','/s','','..','2007/s','s/','\\s','../../x','s\0','x'*300,'猫']), st.just('s')),
                   now_and_then(8, st.binary(max_size=4), st.just(b'')))

# --- the other layouts: LabelMe, tables, YOLO's variants, outlines, lists of images

def pictures(room, folder):
    "A fresh folder with the two pictures of the room"
    d = room.path/folder
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir(parents=True)
    for o in ('a.png','turn.jpg'): shutil.copy(room.path/'img'/o, d)
    return d

@st.composite
def labelme_doc(draw):
    shape = lambda: dict(label=draw(now_and_then(30, WEIRD, NAMES)), points=[*map(list, zip(*[iter(draw(corners()))]*2))],
                         shape_type=draw(st.sampled_from(['rectangle','polygon','circle','point',None])), flags={}, group_id=None)
    return draw(json_file(dict(version='5.5.0', flags={}, shapes=[shape() for _ in range(draw(st.integers(0, 4)))], imagePath='a.png', imageData=None,
                               imageHeight=30, imageWidth=40)))

def check_labelme(x, room):
    "Beside its image, among one without a file"
    meant,raw = x
    d = pictures(room, 'labelme')
    (d/'a.json').write_bytes(raw)
    (d/'turn.json').write_text('{"shapes": []}')
    res,why = attempt(lambda: read_split(d, 'all', verbose=False), names=['a.json','turn.json',str(d)])
    if res is None: return 'refused'
    assert {o.file.name for o in res}=={'a.png','turn.jpg'}
    if meant is None: return 'correct'
    return accounted(res, len(meant['shapes']))

@st.composite
def tables(draw):
    "(the rows as meant, or None where the file was damaged; its ending; the file's bytes)"
    rows = [[draw(st.sampled_from(['a.png','turn.jpg'])), draw(now_and_then(20, st.sampled_from(['None','NA','007',' ','']), NAMES)), *draw(corners())] for _ in range(draw(st.integers(1, 5)))]
    head = draw(st.sampled_from(['fname label x1 y1 x2 y2','filename class xmin ymin xmax ymax','image label x_min y_min x_max y_max','File_Name Category XMIN ymin XMAX ymax'])).split()
    if draw(st.integers(0, 3))==0: head,rows = [*head,'split'],[[*o, draw(st.sampled_from(['train','valid','test','x','']))] for o in rows]
    sep,out = draw(st.sampled_from(',;\t')),io.StringIO()
    csv.writer(out, delimiter=sep).writerows([head, *rows])
    raw,rng,how = out.getvalue().encode('utf-8', 'surrogatepass'),random.Random(draw(st.integers(0, 2**32))),draw(st.sampled_from(['none']*4+['cut','flip','insert','bom']))
    if how=='cut':    raw = raw[:rng.randrange(len(raw))]
    if how=='flip':   raw = flipped(raw, rng)
    if how=='insert': i = rng.randrange(len(raw)); raw = raw[:i]+rng.choice([b'\0', b'"', b'\xff', b'\n', sep.encode()*3, b'1e999', b'../../'])+raw[i:]
    if how=='bom':    raw = b'\xef\xbb\xbf'+raw
    return (rows if how in ('none','bom') else None), draw(st.sampled_from(['.csv','.tsv'])), raw

def check_table(x, room):
    rows,ending,raw = x
    d = pictures(room, 'table')
    (d/f't{ending}').write_bytes(raw)
    res,why = attempt(lambda: read_split(d/f't{ending}', 'all', verbose=False), names=[f't{ending}'])
    if res is None: return 'refused'
    for o in res: assert Path(os.path.abspath(o.file)).is_relative_to(os.path.abspath(d)), o.file
    if rows is None: return 'correct'
    return accounted(res, len(rows))

@st.composite
def yolo_sets(draw):
    "(what describes the set, the lines of a label file, damage)"
    line = lambda: ' '.join(map(str, [draw(now_and_then(8, st.sampled_from([9,-1,'x','1.0','']), st.sampled_from([0,1]))),
                                      *(draw(now_and_then(25, st.sampled_from(ODD), st.floats(0, 1).map(lambda v: f'{v:.6f}'))) for _ in range(draw(st.sampled_from([4,4,4,6,8,3]))))]))
    how = draw(st.sampled_from(['yaml','list','dict','darknet','classes','labels','list file']))
    return how, [line() for _ in range(draw(st.integers(0, 3)))], draw(now_and_then(4, st.binary(min_size=1, max_size=6), st.just(b''))), draw(st.integers(0, 2**32))

def yolo_files(d, how):
    "What describes a YOLO set in folder `d`; returns the file"
    names = '[cat, dog]' if how!='dict' else '{0: cat, 1: dog}'
    text = {'classes':'cat\ndog\n', 'labels':'cat\ndog', 'darknet':'names = data/obj.names\ntrain = data/train.txt\n'}.get(how)
    (d/'train.txt').write_text('data/a.png\ndata/turn.jpg\n' if how=='darknet' else './a.png\nturn.jpg\n')
    if how=='darknet': (d/'obj.names').write_text('cat\ndog\n')
    name = {'classes':'classes.txt', 'labels':'_darknet.labels', 'darknet':'obj.data'}.get(how, 'data.yaml')
    (d/name).write_text(text or f'path: ../nowhere\ntrain: {"train.txt" if how=="list file" else "."}\nnames: {names}\n')
    return d/name

def check_yolo(x, room):
    how,lines,odd,at = x
    d   = pictures(room, 'yolo')
    about,rng = yolo_files(d, how),random.Random(at)
    (d/'a.txt').write_text('\n'.join(lines))
    if odd:
        file = rng.choice([about, d/'a.txt', d/'train.txt'])
        raw  = file.read_bytes(); i = rng.randrange(len(raw)+1); file.write_bytes(raw[:i]+odd+raw[i:])
    res,why = attempt(lambda: read_split(d, 'all', verbose=False))
    if res is None: return 'refused'
    for o in res: assert Path(os.path.abspath(o.file)).is_relative_to(os.path.abspath(d)), o.file
    return 'correct' if odd else accounted(res, sum(bool(o.strip()) for o in lines))

@st.composite
def outlines(draw):
    "(a mask [h,w], how it is written, damage)"
    h,w,rng = draw(st.integers(1, 20)),draw(st.integers(1, 20)),np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.random((h,w))<draw(st.sampled_from([0, .02, .3, .9, 1])), draw(st.sampled_from(['list','packed','polygon'])), draw(now_and_then(3, WEIRD, st.just(0))), draw(st.integers(0, 9))

def packed(counts):
    "COCO's string of run lengths"
    out = ''
    for i,v in enumerate(counts):
        v -= counts[i-2] if i>2 else 0
        while True:
            c,v = v & 31,v>>5
            more = v!=-1 if c & 16 else v!=0
            out += chr(48+(c | 32 if more else c))
            if not more: break
    return out

def check_outline(x, room):
    m,how,odd,k = x
    flat   = m.ravel(order='F')
    counts = np.diff([0, *(np.flatnonzero(np.diff(flat))+1), len(flat)]).tolist()
    counts = [0, *counts] if flat[0] else counts
    s = dict(size=[*m.shape], counts=packed(counts) if how=='packed' else counts)
    ys,xs = m.nonzero()
    if how=='polygon': s = [[float(v) for p in zip(xs, ys) for v in p]]*2
    if odd!=0:
        s = altered(json.loads(json.dumps(s)), [*places(s)][k%len([*places(s)])], 'put', odd) if how!='packed' or k else dict(s, counts=str(odd))
    box,why = attempt(lambda: segment_box(s, 'a.json: annotation 1'), names=['segmentation'])
    if box is None: assert odd!=0 or (how=='polygon' and len(xs)<2), why; return 'refused'
    assert len(box)==4 and all(math.isfinite(v) for v in box)
    if odd==0 and len(xs) and how=='polygon': assert box==[xs.min(), ys.min(), xs.max(), ys.max()]
    if odd==0 and len(xs) and how!='polygon': assert (box[0],box[2])==(xs.min(),xs.max()+1) and box[1]<=ys.min() and box[3]>=ys.max()+1
    return 'correct'

LISTS = st.tuples(st.lists(st.one_of(st.sampled_from(['a.png','./a.png','turn.jpg','img/a.png','/etc/passwd','../a.png','a.png 1','a%2Epng','sub/a.png','猫','']),
                                     st.text(max_size=6)), max_size=4), now_and_then(8, st.binary(max_size=4), st.just(b'')))

def check_image_list(x, room):
    "A text file that lists images: those, in its order, or one line"
    lines,odd = x
    d = pictures(room, 'listed')
    for o in ('a','turn'): (d/f'{o}.json').write_text('{"shapes": []}')
    file = d/'some.txt'
    file.write_bytes('\n'.join(lines).encode('utf-8', 'replace')+odd)
    res,why = attempt(lambda: read_split(d, str(file), verbose=False), names=['some.txt'])
    if res is None: return 'refused'
    known = {'a.png','./a.png','turn.jpg'}
    meant = list(dict.fromkeys(o.removeprefix('./') for o in lines if o in known))
    assert {o.file.name for o in res}<={'a.png','turn.jpg'} and (odd or not {*lines}<=known or [o.file.name for o in res]==meant)
    return 'correct'

# --- detectors' results

@st.composite
def results(draw):
    recs = [dict(image_id=draw(st.sampled_from([0,'a'])), file_name='a.png', category_id=draw(st.sampled_from([1,2])), bbox=[v for v in draw(corners(one_in=1000))],
                 score=draw(st.floats(0, 1))) for _ in range(draw(st.integers(0, 3)))]
    return draw(json_file(recs))

RECORD = [GroundTruth([], [], size=BOXED['a'], file='a.png', image_id='a')]

def check_results(x, room):
    meant,raw = x
    file = room.path/'r.json'
    file.write_bytes(raw)
    res,why = attempt(lambda: read_detections(file, RECORD, ['#na#','cat','dog'], {'cat':1, 'dog':2}), names=['r.json','a.png'])
    if res is None: assert meant is None, why; return 'refused'
    assert len(res)==1 and len(res[0])==len(json.loads(raw.decode('utf-8-sig')))
    return 'correct'

# --- images of 16 bits

Deep = namedtuple('Deep', 'ext lo hi h w n stated colour')

@st.composite
def deep_shots(draw):
    lo,hi = sorted(draw(st.sampled_from([(0,255), (0,1023), (0,4095), (0,16383), (0,65535), (27_000,31_000), (30_000,30_100), (900,900), (0,0), (65_535,65_535)])
                        if draw(st.booleans()) else st.tuples(st.integers(0, 65535), st.integers(0, 65535))))
    return Deep(draw(st.sampled_from(['png','tif','pgm'])), lo, hi, draw(st.integers(1, 20)), draw(st.integers(2, 40)), draw(st.integers(0, 2**32)),
                draw(st.sampled_from([None,None,hi,4095,60_000])), draw(st.integers(0, 3))==3)

def deep_colour(a):
    "The bytes of a colour PNG with 16 bits per channel, of pixels [h,w,3]"
    part = lambda k,d: struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k+d))
    rows = b''.join(b'\0'+o.astype('>u2').tobytes() for o in a)
    return b'\x89PNG\r\n\x1a\n' + part(b'IHDR', struct.pack('>IIBBBBB', a.shape[1], a.shape[0], 16, 2, 0, 0, 0)) + part(b'IDAT', zlib.compress(rows)) + part(b'IEND', b'')

def check_deep(s, room):
    "Grey of 16 bits: the order of the values stays, none of the range is lost, and the whole range gives its upper 8 bits"
    a = np.random.default_rng(s.n).integers(s.lo, s.hi+1, (s.h,s.w,3) if s.colour else (s.h,s.w)).astype(np.uint16)
    a.flat[0],a.flat[-1] = s.lo,s.hi
    file = room.path/f'deep.{"png" if s.colour else s.ext}'
    if s.colour: file.write_bytes(deep_colour(a))
    else: Image.fromarray(a).save(file, **(dict(tiffinfo={281:s.stated}) if s.ext=='tif' and s.stated else {}))
    im,why = attempt(load_image, file, names=[file.name])
    assert image_size(file)==(s.h,s.w)
    if s.colour:
        assert (im is None)==(0<s.hi>>8<128), why
        return 'refused' if im is None else 'correct' if np.array_equal(np.asarray(im), a>>8) else 'the upper 8 bits are not there'
    got = np.asarray(im).astype(int)
    assert got.shape==(s.h,s.w,3) and (got==got[...,:1]).all() and np.array_equal(got, np.asarray(load_image(file)))
    v,g = a.ravel().astype(int),got[...,0].ravel()
    order = np.argsort(v, kind='stable')
    assert (np.diff(g[order])>=0).all(), 'a brighter pixel became darker'
    if s.ext=='tif' and s.stated and s.hi<=s.stated<65535: assert np.abs(g-v*256/(s.stated+1)).max()<=1; return 'correct'
    whole = s.lo==s.hi or (s.hi>=2**15 and s.hi-s.lo>=2**14)
    if whole: assert np.array_equal(g, v>>8); return 'correct'
    assert g.max()-g.min()>=min(s.hi-s.lo, 62), 'greys were lost'
    return 'correct'

# --- VOC objects in other shapes

@st.composite
def odd_voc(draw):
    "(texts of objects, their boxes or None where the file must be refused, the whole XML)"
    spell = draw(st.sampled_from([str, str, str.upper, str.capitalize]))
    el    = lambda k,*inside: f'<{spell(k)}>{"".join(inside)}</{spell(k)}>'
    wrap  = draw(st.sampled_from([None,None,'objects','Objects','items']))
    boxes,texts,fault = [],[],False
    for _ in range(draw(st.integers(0, 4))):
        x,y = draw(st.integers(1, 30)),draw(st.integers(1, 20))
        b   = [x, y, x+draw(st.integers(1, 8)), y+draw(st.integers(1, 8))]
        n   = draw(now_and_then(6, st.sampled_from([0,2,3]), st.just(1)))
        box = el('bndbox', *(el(k, str(v)) for k,v in zip(('xmin','ymin','xmax','ymax'), b)))
        texts.append(el('object', el('name', draw(st.sampled_from(['cat','dog']))), *[box]*n))
        boxes.append([b[0]-1, b[1]-1, *b[2:]])
        fault |= n!=1
    if texts and draw(st.integers(0, 7))==7: texts[0],fault = texts[0].replace(f'</{spell("object")}>', f'{texts[-1]}</{spell("object")}>'),True # one inside another
    stray = draw(now_and_then(8, st.sampled_from(['<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>', '<box xmin="1" ymin="1" xmax="5" ymax="5"/>']), st.just('')))
    body  = el(wrap, *texts) if wrap else ''.join(texts)
    space = draw(st.sampled_from(['','',' xmlns="http://example.org/voc"']))
    return (None if fault or stray else boxes), len(texts), f'<annotation{space}>{tag("filename", "a.png")}{body}{stray}</annotation>'

def check_odd_voc(x, room):
    "Every box of the file is read, or the file is refused"
    boxes,n,text = x
    (room.voc/'Annotations/a.xml').write_text(text)
    res,why = attempt(lambda: read_voc(room.voc, 'a', verbose=False), names=['a.xml'])
    if boxes is None: assert why, f'read: {res[0].boxes.tolist()} of {text}'; return 'refused'
    assert res is not None, why
    np.testing.assert_array_equal(res[0].boxes.numpy(), np.float32(boxes).reshape(-1,4))
    return accounted(res, n)

# --- names with spaces in the list of a split

WORDY = ['photo','photo (1)','photo 1','photo 0','photo -1','a b','a b 1','c','c 1 1','x  y']

@st.composite
def wordy_splits(draw):
    "(the images that are there, lines as (name, text))"
    there = draw(st.lists(st.sampled_from(WORDY), min_size=1, max_size=6, unique=True))
    line  = st.sampled_from([*there, *there, *WORDY]).flatmap(lambda o: st.sampled_from([o, o, f'{o} 1', f'{o} -1', f'{o}  0', f'{o}.png', f' {o} ', f'./{o}']))
    return there, draw(st.lists(line, min_size=1, max_size=5))

def meant(line, there):
    "The image that a line means: the whole of it first, then without its flag; None: none"
    line = line.strip().removeprefix('./')
    for o in (line, re.sub(r'\s+(-1|0|1)$', '', line)):
        for p in (o, o.removesuffix('.png')):
            if p in there: return p

def check_wordy(x, room):
    there,lines = x
    voc = room.path/'wordy'
    shutil.rmtree(voc, ignore_errors=True)
    for o in ('JPEGImages','Annotations','ImageSets/Main'): (voc/o).mkdir(parents=True)
    for o in there:
        os.link(room.path/'img/a.png', voc/f'JPEGImages/{o}.png')
        (voc/f'Annotations/{o}.xml').write_text('<annotation></annotation>')
    (voc/'ImageSets/Main/s.txt').write_text('\n'.join(lines))
    want = [meant(o, there) for o in lines]
    res,why = attempt(lambda: read_voc(voc, 's', verbose=False), names=['s.txt'])
    if None in want: assert why, f'read: {[o.file.name for o in res]}'; return 'refused'
    assert res is not None, why
    assert [o.file.stem for o in res]==list(dict.fromkeys(want))
    return 'correct'

# --- coordinates as shares of the image

@st.composite
def shares(draw):
    "(a COCO document or a data frame, whether its boxes are shares): 12 and more boxes"
    share = draw(st.booleans())
    h,w   = BOXED['a']
    rng   = random.Random(draw(st.integers(0, 2**32)))
    unit  = [[rng.uniform(0, .5), rng.uniform(0, .5), rng.uniform(.1, .5), rng.uniform(.1, .5)] for _ in range(draw(st.integers(12, 20)))] # x,y,w,h
    boxes = unit if share else [[x*w, y*h, a*w, b*h] for x,y,a,b in unit]
    if draw(st.booleans()):
        doc = dict(images=[dict(id=1, file_name='a.png', height=h, width=w), dict(id=2, file_name='sub/a.png', height=h, width=w)], categories=[dict(id=1, name='cat')],
                   annotations=[dict(id=i, image_id=1+i%2, category_id=1, bbox=b) for i,b in enumerate(boxes)])
        return doc, share
    return pd.DataFrame([[('a.png','sub/a.png')[i%2], 'cat', x, y, x+a, y+b] for i,(x,y,a,b) in enumerate(boxes)], columns='fname label x1 y1 x2 y2'.split()), share

def check_shares(x, room):
    "Boxes in 0–1 are refused, or harm in the doctor's eyes; boxes in pixels are neither"
    data,share = x
    if isinstance(data, dict):
        (room.path/'s.json').write_text(json.dumps(data))
        res,why = attempt(lambda: read_coco(room.path/'img', room.path/'s.json', verbose=False))
    else: res,why = attempt(lambda: read_df(data, room.path/'img', verbose=False))
    if res is None: assert share, why; return 'refused'
    report,why = attempt(lambda: check_dataset(res, None, None, size=64))
    kinds = {o.kind for o in report.problems}
    assert ('relative boxes' in kinds)==share, kinds
    return 'correct'

# --- results that name their images in several ways

MIXED = ['seq1/f.jpg','seq2/f.jpg','a.jpg','a.png','7.png','9.png','sub/b.png']
IDS   = [9, 7, 3, 4, 5, 6, 8] # 9.png is image 6, image 9 is seq1/f.jpg

@st.composite
def mixed_results(draw):
    "(rows, number of the image that each means; None: that is not clear)"
    rows,want = [],[]
    for _ in range(draw(st.integers(0, 6))):
        i,how = draw(st.integers(0, 6)),draw(st.sampled_from(['id','path','both','id and name','id as text','absolute','name','stem','other']))
        row,sure,p = {},i,Path(MIXED[i])
        alone = lambda f: sum(f(Path(o))==f(p) for o in MIXED)==1
        if how in ('id','both','id and name','other'): row['image_id'] = IDS[i]
        if how=='id as text': row['image_id'],sure = str(IDS[i]),None if f'{IDS[i]}.png' in MIXED else i # text may be an id or a name
        if how in ('path','both'): row['file_name'] = MIXED[i]
        if how=='absolute': row['file_name'] = f'/elsewhere/{i}/{MIXED[i]}'
        if how=='id and name': row['file_name'] = p.name
        if how=='name': row['file_name'],sure = p.name,i if alone(lambda o: o.name) else None
        if how=='stem': row['file_name'],sure = p.stem,i if alone(lambda o: o.stem) else None
        if how=='other': row['file_name'],sure = MIXED[(i+1)%7],None # contradicts the id
        if how=='name' and '/' not in MIXED[i]: sure = i # a whole path
        rows.append(dict(row, category_id=1, bbox=[i, i, 10, 10], score=0.5)); want.append(sure)
    return rows, want

def check_mixed(x, room):
    rows,want = x
    recs = [GroundTruth([], [], size=(60,80), file=room.path/'mixed'/o, image_id=k) for o,k in zip(MIXED, IDS)]
    file = room.path/'x.json'
    file.write_text(json.dumps(rows))
    res,why = attempt(lambda: read_detections(file, recs, ['#na#','cat'], {'cat':1}, room.path/'mixed'), names=['x.json'])
    if None in want: assert why, f'read: {rows}'; return 'refused'
    if res is None: assert 'another record of this name' in why and any('/elsewhere' in o.get('file_name', '') for o in rows), why; return 'refused'
    for i,d in enumerate(res): assert len(d)==want.count(i) and (d.boxes[:,0]==i).all(), (i, rows)
    return 'correct'

# --- model files

@st.composite
def model_files(draw):
    return draw(st.sampled_from(['bit','bit','cut','insert','zero','tensor','claim','claim','text'])), draw(st.integers(0, 2**32)), draw(WEIRD), draw(st.sampled_from(['drop','put','put','double']))

GOOD = (GOLDEN/'detector.safetensors').read_bytes()
N    = int.from_bytes(GOOD[:8], 'little')

def join(tensors, ours, data, sealed=True):
    "A file of these parts, with a checksum that fits: a forger can compute it too"
    if sealed and isinstance(ours, dict): ours = {**ours, 'checksum':SEAL_MARK}
    text = json.dumps({'__metadata__':{'ssd_fastai':json.dumps(ours)}, **tensors}).encode()
    text += b' '*(-len(text)%8)
    return seal(struct.pack('<Q', len(text)) + text + data)

def model_bytes(how, n, value, op):
    rng,tensors = random.Random(n),json.loads(GOOD[8:8+N])
    ours = json.loads(tensors.pop('__metadata__')['ssd_fastai'])
    at = rng.randrange(8+N if rng.random()<.7 else len(GOOD))
    if how=='bit':    raw = bytearray(GOOD); raw[at] ^= 1 << rng.randrange(8); return bytes(raw)
    if how=='cut':    return GOOD[:at]
    if how=='insert': return GOOD[:at]+rng.randbytes(rng.choice([1, 8, 64]))+GOOD[at:]
    if how=='zero':   return GOOD[:at]+bytes(len(GOOD[at:at+64]))+GOOD[at+64:]
    if how=='text':   return json.dumps(value).encode()*rng.randint(1, 99)
    try:
        if how=='tensor': tensors = altered(tensors, rng.choice(list(places(tensors))), op, value)
        else: ours = altered(ours, rng.choice([o for o in places(ours)]), op, value)
        return join(tensors, ours, GOOD[8+N:])
    except TypeError: return b''

def check_model(x, room):
    how,*_ = x
    file = room.path/'f.safetensors'
    raw = model_bytes(*x)
    file.write_bytes(raw)
    det,why = attempt(load_detector, file, names=[file.name])
    if det is None: return 'refused'
    assert how in ('claim','tensor') or raw==GOOD, 'a damaged file was opened'
    if max(det.size)>300: return 'correct'
    got,no = attempt(det.detect, room.path/'img/a.png')
    want = load_detector(room.model).detect(room.path/'img/a.png') if how=='tensor' else None
    if want is not None: alike(got, want)
    assert got is not None and got.size==BOXED['a'] and got.boxes.isfinite().all()
    return 'correct'

# --- command lines

LIMITS    = '--score --iou --max-per-class --max-per-image'
GOOD_ARGS = {'--size':['64','48x64'], '--json':['@out.json'], '--draw':['@out.png'], '--score':['0.3','0','1'], '--iou':['0.5'],
             '--max-per-class':['10'], '--max-per-image':['10'], '--split':['test','val'], '--train':['train'], '--valid':['val'], '--test':['test'],
             '--onnx':['@x.onnx'], '--images':['@img','@img/a.png']}
SOUND     = dict(data='@shapes', model='@m.safetensors', images='@img')
ODD_ARGS  = {'--size':['0','-3','x','1x2x3','nan','', '10**9','9999999999999999999999'], '--score':['x','high','nan','','-1','-2','7'],
             '--iou':['two','-1','9','nan'], '--max-per-class':['x','0','-5','1.5'], '--max-per-image':['x','0','-5','1.5'],
             '--json':['@','@no/such/deep/o.json','@m.safetensors/x.json'], '--nonsense':['1'], '--train':['nope','../../x','no.json','','train,train'],
             '--valid':['nope','/etc','train'], '--split':['nope','../x','no.json',''], '--detections':['no.json','@m.safetensors','@shapes'],
             '--epochs':['x','1.5'], '--frozen':['x','-1','100000'], '--bs':['x','0','-1','100000'], '--arch':['resnet9000','../x',''],
             '--weights':['nofile','@m.safetensors','@img/a.png'], '--precision':['float3',''], '--head':['yolo','ssd'], '--method':['crop'], '--lr':['x'],
             '--onnx':['@x.txt',''], '--images':['@nowhere']}
# what would go through in silence, and find nothing
NEVER     = {*itertools.product(['--score','--iou'], ['nan','-1','-2','7','9']), *itertools.product(['--max-per-class','--max-per-image'], ['0','-5'])}
COMMANDS  = {ssd_check: ('data', '--size --json --draw --train --valid --test'), ssd_eval: ('model data', f'--split --json --detections {LIMITS}'),
             ssd_predict: ('model images', f'--json {LIMITS}'), ssd_export: ('model', '--onnx --images'),
             ssd_train: ('data', '--arch --size --bs --epochs --frozen --weights --precision --head --method --train --valid --lr')}
WHERE     = dict(data=['@shapes','@shapes','@shapes','@nowhere','@img','@m.safetensors','','@voc','\0','x'*300], model=['@m.safetensors','@m.safetensors','@nowhere','@img/a.png','@shapes',''],
                 images=['@img/a.png','@img','@nowhere','@m.safetensors','@out',''])

@st.composite
def command_lines(draw):
    f = draw(st.sampled_from([*COMMANDS]))
    pos,opts = (o.split() for o in COMMANDS[f])
    args = [draw(now_and_then(5, st.sampled_from(WHERE[o]), st.just(SOUND[o]))) for o in pos]
    args = args[:draw(st.integers(0, len(args)))] if draw(st.integers(0, 9))==9 else args
    if f is ssd_export and draw(st.integers(0, 2))==2: args += ['--onnx','@x.onnx']
    for o in draw(st.lists(st.sampled_from([*opts,'--nonsense'] if draw(st.integers(0, 5))==5 else opts), max_size=2, unique=True)):
        odd  = st.sampled_from(ODD_ARGS.get(o) or GOOD_ARGS[o])
        args += [o, draw(now_and_then(4, odd, st.sampled_from(GOOD_ARGS[o])) if o in GOOD_ARGS else odd)]
    if f is ssd_train: # never a whole training: one mistake is certain
        o = draw(st.sampled_from(['--arch','--weights','--method','--bs','--train']))
        args += [o, draw(st.sampled_from([v for v in ODD_ARGS[o] if v not in ('-1','train,train')]))]
    return f, args

def filled(f, args, room):
    "The arguments with the room's folders in the places marked by '@'"
    return [str(room.path/o[1:]) if o.startswith('@') else o for o in args] + (['--out', str(room.fresh())] if f is ssd_train else [])

def check_command(x, room):
    f,args = x
    room.data()
    out,err,code = io.StringIO(),io.StringIO(),0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try: f(filled(f, args, room))
        except SystemExit as e: code = e.code or 0
    assert room.model.read_bytes()==GOOD, 'the model file was written over'
    res = verdict(f.__name__.replace('_','-'), code, out.getvalue(), err.getvalue())
    assert res=='refused' or not NEVER & {*zip(args, args[1:])}, 'accepted'
    return res

def verdict(prog, code, out, err):
    "'correct' or 'refused' by what a command line left behind"
    assert 'Traceback' not in err+out and code in (0, 1, 2), f'{code}: {err[-500:]}'
    assert code!=1 or prog=='ssd-check'
    if code!=2: return 'correct'
    lines = [o for o in err.splitlines() if o.strip() and not re.match(r'failed: |[\d,]+ images?, ', o)]   # what was done and what was not
    assert lines and f'{prog}: error: ' in lines[-1], f'{err[-500:]!r}'
    assert len(lines)==1 or lines[0].startswith('usage: '), f'more than a line: {err[-500:]}'
    return 'refused'

# --- all of them

KINDS = {
    'boxes':         Kind(box_sets(),      check_boxes,      12_000, 150),
    'odd boxes':     Kind(ODD_BOXES,       check_odd_boxes,   8_000, 150),
    'fit':           Kind(fits(),          check_fit,         6_000, 100),
    'encoding':      Kind(coded(),         check_coder,       6_000, 100),
    'suppression':   Kind(scored(),        check_suppress,    8_000, 100),
    'evaluation':    Kind(judged(),        check_evaluation,  3_000,  40),
    'VOC XML':       Kind(voc_doc(),       check_voc,        17_000, 250),
    'COCO JSON':     Kind(coco_doc(),      check_coco,       14_000, 200),
    'data frames':   Kind(frame(),         check_df,          6_000, 120),
    'split lists':   Kind(SPLITS,          check_split,       4_000, 100),
    'results JSON':  Kind(results(),       check_results,     5_000, 100),
    'there and back':Kind(found(),         check_back,        3_000,  60),
    'three readers': Kind(truth(),         check_readers,     2_000,  40),
    'data sets':     Kind(voc_doc(),       check_doctor,      2_000,  60),
    'images':        Kind(shots(),         check_image,       2_600, 150),
    'image arrays':  Kind(arrays(),        check_array,       2_000, 100),
    '16 bits':       Kind(deep_shots(),    check_deep,        1_500, 100),
    'VOC shapes':    Kind(odd_voc(),       check_odd_voc,     2_000, 100),
    'split names':   Kind(wordy_splits(),  check_wordy,       1_000,  60),
    'shares':        Kind(shares(),        check_shares,        500,  30),
    'mixed results': Kind(mixed_results(), check_mixed,       2_000, 100),
    'LabelMe JSON':  Kind(labelme_doc(),   check_labelme,     5_000, 100),
    'tables':        Kind(tables(),        check_table,       4_000,  80),
    'YOLO sets':     Kind(yolo_sets(),     check_yolo,        4_000, 100),
    'outlines':      Kind(outlines(),      check_outline,     3_000, 150),
    'image lists':   Kind(LISTS,           check_image_list,  2_000,  60),
    'model files':   Kind(model_files(),   check_model,         300,  10),
    'command lines': Kind(command_lines(), check_command,       150,  12),
}

# --- a folder of many images

def crowd(path, n):
    "A VOC folder of `n` images, every tenth broken in one of five ways; returns it and {how: names}. Files are links to a few hundred"
    src = synth_voc(path/'src', n=min(n, 300), seed=9, n_classes=3)
    pics = sorted(src.glob('JPEGImages/*'))
    for o in ('JPEGImages','Annotations','ImageSets/Main'): (path/'many'/o).mkdir(parents=True)
    broken = {o: [] for o in ('cut','empty','text','folder','xml')}
    for i in range(n):
        pic,name = pics[i%len(pics)],f'{i:06}'
        img,xml = path/f'many/JPEGImages/{name}{pic.suffix}',path/f'many/Annotations/{name}.xml'
        how = [*broken][i//10%5] if i%10==9 else None
        if how: broken[how].append(name)
        if how=='cut': raw = pic.read_bytes(); img.write_bytes(raw[:len(raw)*(5+i//10%4)//10])
        elif how in ('empty','text'): img.write_bytes(b'' if how=='empty' else b'no image')
        elif how=='folder': img.mkdir()
        else: os.link(pic, img)
        if how=='xml': xml.write_bytes(b'<annotation><object>')
        else: os.link(src/f'Annotations/{pic.stem}.xml', xml)
    names = [f'{i:06}' for i in range(n)]
    (path/'many/ImageSets/Main/all.txt').write_text('\n'.join(names))
    return path/'many', broken

def check_crowd(path, n, model):
    "The doctor, the reader and `ssd-predict` over a folder of `n` images account for every one; returns what each said"
    data,broken = crowd(Path(path), n)
    bad_pic = {k for o in ('cut','empty','text','folder') for k in broken[o]}
    report = check_dataset(data, 'all', None, size=64)
    named  = lambda kind: {Path(o.file).stem for o in report.problems if o.kind==kind}
    assert report.splits['all']['images']==n and named('unreadable image')|named('image not found')==bad_pic and named('unreadable annotation')=={*broken['xml']}
    _,why = attempt(lambda: read_voc(data, 'all', verbose=False))
    assert why and any(k in why for o in broken.values() for k in o)
    (data/'ImageSets/Main/headers.txt').write_text('\n'.join(f'{i:06}' for i in range(n) if f'{i:06}' not in bad_pic-{*broken['cut']} | {*broken['xml']}))
    recs = read_voc(data, 'headers', verbose=False)
    _,why = attempt(verify_pixels, recs)
    assert why and any(k in why for k in broken['cut'])
    sound = [o for o in recs if o.file.stem not in bad_pic]
    verify_pixels(sound)
    assert len(sound)==n-len(bad_pic)-len(broken['xml'])
    err,out,code = io.StringIO(),io.StringIO(),0
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        try: ssd_predict([str(model), str(data/'JPEGImages'), '--json', str(data/'all.json'), '--voc', str(data/'found')])
        except SystemExit as e: code = e.code
    failed = {Path(re.match(r'failed: (.*?): ', o)[1]).stem for o in err.getvalue().splitlines() if o.startswith('failed: ')}
    done = {o.stem for o in (data/'found').glob('*.xml')}
    assert code==2 and failed==bad_pic and done=={f'{i:06}' for i in range(n)}-bad_pic, (code, len(failed), len(bad_pic), len(done))
    return dict(images=n, done=len(done), failed=len(failed), broken={k: len(v) for k,v in broken.items()}, detections=len(json.loads((data/'all.json').read_text())))
