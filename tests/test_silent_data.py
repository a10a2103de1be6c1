"""Inputs that other packages read wrong in silence: each is read right, or refused in one line."""
import json, random, re, unicodedata
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from ssd_fastai.data import DetectionDataLoaders
from ssd_fastai.formats import flag, parse_voc
from ssd_fastai.readers import CLIPPED, EXIF_TURN, OTHER_SIZE, RESCALED, VOC_NAMES, make_vocab, read_coco, read_df, read_split, read_voc
from ssd_fastai.records import GroundTruth, box_fault

H,W = 60,80
def bndbox(b): return '<bndbox>'+''.join(f'<{k}>{v}</{k}>' for k,v in zip(('xmin','ymin','xmax','ymax'), b))+'</bndbox>'
def obj(b=(11,11,40,40), name='cat'): return f'<object><name>{name}</name>{bndbox(b)}</object>'
def xml(inside, h=H, w=W): return f'<annotation><size><width>{w}</width><height>{h}</height></size>{inside}</annotation>'

def voc(root, items, lines=None, **save):
    "A VOC folder of plain pictures: {stem: XML}"
    for o in ('JPEGImages','Annotations','ImageSets/Main'): (root/o).mkdir(parents=True, exist_ok=True)
    for k,x in items.items():
        Image.new('RGB', (W,H), (90,120,150)).save(root/f'JPEGImages/{k}.jpg', **save)
        (root/f'Annotations/{k}.xml').write_text(x, encoding='utf-8')
    (root/'ImageSets/Main/train.txt').write_text('\n'.join(lines or items), encoding='utf-8')
    return root

def coco(root, anns, n=1, cats=('cat',), **image):
    "A COCO file of `n` plain pictures: the path of the file"
    for i in range(n): Image.new('RGB', (W,H)).save(root/f'{i}.png')
    images = [dict(id=i, file_name=f'{i}.png', height=H, width=W, **image) for i in range(n)]
    cats   = [dict(id=i, name=o) for i,o in enumerate(cats, 1)]
    anns   = [dict(id=i, image_id=i%n, category_id=1, **o) for i,o in enumerate(anns)]
    (root/'t.json').write_text(json.dumps(dict(images=images, annotations=anns, categories=cats)))
    return root/'t.json'

def refused(f, *parts):
    with pytest.raises(ValueError) as e: f()
    assert type(e.value) is ValueError and '\n' not in str(e.value) and not [o for o in parts if o not in str(e.value)], e.value

# --- objects in XML

TAGS = ['object','Object','OBJECT','ns:object','objects','item','obj','detections','bndbox','box','part']

@pytest.mark.parametrize('seed', range(300))
def test_no_box_in_xml_is_passed_over(seed):
    "A random tree: as many objects as there are boxes in it, or a refusal"
    rng,n = random.Random(seed),0
    def grow(depth):
        nonlocal n
        tag = rng.choice(TAGS)
        if depth and rng.random()<0.4: return f'<{tag}>{"".join(grow(depth-1) for _ in range(rng.randint(0, 3)))}</{tag}>'
        n += (boxes := rng.choice([1, 1, 1, 2]))
        return f'<{tag}><name>cat</name>{bndbox((11,11,40,40))*boxes}</{tag}>'
    inside = ''.join(grow(2) for _ in range(rng.randint(0, 3)))
    try: ann = parse_voc(f'<annotation xmlns:ns="http://a.org/b">{inside}</annotation>')
    except ValueError as e: assert n or 'object' in str(e), e; return
    assert len(ann.objects)==n

@pytest.mark.parametrize('wrap', ['<objects>{}</objects>', '<a><b>{}</b></a>', '{}'])
@pytest.mark.parametrize('tag', ['object','Object','OBJECT'])
def test_wrapped_objects_are_read(wrap, tag):
    text = wrap.format(obj()+obj((1,1,9,9), 'dog')).replace('<object>', f'<{tag}>').replace('</object>', f'</{tag}>')
    ann = parse_voc(xml(text))
    assert [(o.name, o.box) for o in ann.objects]==[('cat', [10,10,40,40]), ('dog', [0,0,9,9])] and ann.size==(H,W)

# --- lines of a split

NAMES = ['photo','photo (1)','photo 2','a b c','x.y','1','-1','caf\u00e9 0']

@pytest.mark.parametrize('seed', range(20))
def test_a_line_means_its_own_image(tmp_path, seed):
    rng   = random.Random(seed)
    stems = rng.sample(NAMES, 5)
    voc(tmp_path, {o: xml(obj(name=f'n{NAMES.index(o)}')) for o in stems})
    form  = lambda o: unicodedata.normalize(rng.choice(['NFC','NFD']), rng.choice(['','./']) + o + rng.choice(['','.jpg']))
    lines = [form(o) + rng.choice(['', ' 1', '  -1', '\t0']) for o in stems]
    (tmp_path/'ImageSets/Main/train.txt').write_text('\n'.join(lines), encoding='utf-8')
    want  = []
    for o,line in zip(stems, lines): # a flag may make it another image's whole name
        plain = unicodedata.normalize('NFC', line.strip().removeprefix('./'))
        want.append(plain if plain in stems else o)
    got = read_voc(tmp_path, 'train', verbose=False)
    assert [o.names for o in got]==[[f'n{NAMES.index(o)}'] for o in dict.fromkeys(want)]
    (tmp_path/'ImageSets/Main/train.txt').write_text(stems[0]+' 7')
    refused(lambda: read_voc(tmp_path, 'train'), 'no such image')

# --- one rule for boxes

def test_record_and_reader_have_one_rule(tmp_path):
    "Random boxes: what a reader leaves out no record can hold; what it keeps or clips is the record's"
    Image.new('RGB', (W,H)).save(tmp_path/'a.png')
    rng = np.random.default_rng(0)
    for i in range(200):
        b  = rng.uniform(-20, 100, 4) if i%2 else rng.integers(-3, 84, 4).astype(float)
        if i%3: b = np.r_[np.minimum(b[:2], b[2:]), np.maximum(b[:2], b[2:])]
        df = pd.DataFrame([['a.png','cat',*b]], columns='fname label x1 y1 x2 y2'.split())
        rec = read_df(df, tmp_path, verbose=False)
        hand = lambda: GroundTruth([b.tolist()], ['cat'], size=(H,W), file='a.png')
        if rec.left_out: refused(hand, 'a.png: object 1 (cat)'); assert box_fault(b.tolist(), (H,W))==rec.left_out[0].why
        else:
            assert torch.equal(hand().boxes, rec[0].boxes)
            assert bool(rec.clipped)==(not torch.equal(rec[0].boxes, torch.tensor(b[None], dtype=torch.float32)))
            assert all(o.why==CLIPPED for o in rec.clipped)

# --- the whole

@pytest.mark.parametrize('n', [3,40])
def test_shares_are_refused_in_every_format(tmp_path, n):
    b = np.sort(np.random.default_rng(n).uniform(0, 1, (n,2,2)), 1).reshape(n,4)
    Image.new('RGB', (W,H)).save(tmp_path/'a.png')
    df = pd.DataFrame(b, columns='x1 y1 x2 y2'.split()).assign(fname='a.png', label='cat')
    refused(lambda: read_df(df, tmp_path), 'between 0 and 1', 'multiply')
    refused(lambda: read_coco(tmp_path, coco(tmp_path, [dict(bbox=[x1,y1,x2-x1,y2-y1]) for x1,y1,x2,y2 in b.tolist()], n=2)), 't.json')
    refused(lambda: read_voc(voc(tmp_path/'v', dict(a=xml(''.join(map(obj, b.tolist())))))), 'between 0 and 1')
    hand = [GroundTruth(b, ['cat']*n, size=(H,W), file=tmp_path/'a.png')]
    refused(lambda: DetectionDataLoaders.from_records(hand, hand, bs=1), 'between 0 and 1')

def test_corners_in_cocos_bbox(tmp_path):
    rng = np.random.default_rng(0)
    b   = np.c_[rng.uniform(0, 50, (40,2))*[1,.7], rng.uniform(5, 25, (40,2))]
    read = lambda b,**kw: read_coco(tmp_path, coco(tmp_path, [dict(bbox=o, **kw) for o in b.tolist()], n=10), verbose=False)
    assert read(b).n_boxes==40
    b[:,2:] += b[:,:2]
    refused(lambda: read(b), 't.json', 'x, y, width, height')
    refused(lambda: read(b*0.5), 'x, y, width, height') # none reaches out, but the last numbers grow with the first
    refused(lambda: read(b[:3]), 'x, y, width, height')

@pytest.mark.parametrize('k', [2, 0.5, 3])
def test_resized_images(tmp_path, k):
    size = dict(h=int(H*k), w=int(W*k))
    b    = [int(v*k) for v in (20,10,60,40)]
    voc(tmp_path, {str(i): xml(obj((b[0]+1,b[1]+1,*b[2:])), **size) for i in range(10)})
    refused(lambda: read_split(tmp_path, 'train'), 'another size', 'rescale=True')
    got = read_voc(tmp_path, 'train', verbose=False, rescale=True)
    for o in got: assert o.boxes.tolist()==[[20,10,60,40]]
    assert [o.why for o in got.notes]==[RESCALED]*10
    voc(tmp_path, {str(i): xml(obj()) for i in range(5)}, lines=map(str, range(10))) # half of them are right
    assert [o.why for o in read_voc(tmp_path, 'train', verbose=False).notes].count(OTHER_SIZE)==5

# --- names, flags, turns

def test_only_a_devkit_has_vocs_classes(tmp_path):
    pets = dict(a=xml(obj()+obj(name='dog')))
    assert make_vocab(read_voc(voc(tmp_path/'own', pets)))==['#na#','cat','dog']
    voc(tmp_path/'kit/VOC2007', pets)
    for recs in (read_voc(tmp_path/'kit', '2007/train'), read_split(tmp_path/'kit', '2007/train')): assert make_vocab(recs)==['#na#', *VOC_NAMES]
    assert make_vocab(read_voc(tmp_path/'own'), vocab=VOC_NAMES)==['#na#', *VOC_NAMES]

def test_one_name_in_two_forms_is_one_class(tmp_path):
    recs = read_voc(voc(tmp_path, {str(i): xml(obj(name=o)) for i,o in enumerate(('caf\u00e9','cafe\u0301',' caf\u00e9 '))}))
    assert recs.classes==['caf\u00e9']
    for bad in ('ca\u200bfe', '\ufeffcat', 'cat\u2060'):
        refused(lambda: read_voc(voc(tmp_path/'bad', dict(a=xml(obj(name=bad))))), 'invisible character', 'object 1')
        refused(lambda: GroundTruth([[0,0,9,9]], [bad], size=(H,W)), 'invisible character')

@pytest.mark.parametrize('word,is_on', [('False',0), ('no',0), ('0',0), ('0.0',0), (' FALSE ',0), (None,0), ('True',1), ('yes',1), (1.0,1), (np.True_,1)])
def test_flags_are_words(word, is_on): assert flag(word, 'x') is bool(is_on)

@pytest.mark.parametrize('word', ['maybe','2',2,0.5,'train','-1','None','nan'])
def test_unclear_flags_are_refused(word): refused(lambda: flag(word, 'row 3: difficult'), 'row 3: difficult')

def test_a_turn_without_a_size_is_noted(tmp_path):
    exif = Image.Exif(); exif[0x0112] = 6
    voc(tmp_path, dict(a=f'<annotation>{obj()}</annotation>', b='<annotation></annotation>'), exif=exif)
    df = pd.DataFrame([['a.jpg','cat',10,10,40,40]], columns='fname label x1 y1 x2 y2'.split())
    for recs in (read_voc(tmp_path, verbose=False), read_df(df, tmp_path/'JPEGImages', verbose=False)):
        assert [o.why for o in recs.notes]==[EXIF_TURN]

def test_two_categories_of_one_name(tmp_path):
    file = coco(tmp_path, [dict(bbox=[1,1,9,9])], cats=('cat','cat '))
    assert read_coco(tmp_path, file).category_ids=={'cat':1}
    d = json.loads(file.read_text()); d['annotations'].append(dict(d['annotations'][0], id=9, category_id=2)); file.write_text(json.dumps(d))
    refused(lambda: read_coco(tmp_path, file), 'categories 1 and 2')

@pytest.mark.parametrize('name,what', [('https://a.org/b.png','is a URL'), ('a\\b.png','backslashes'), ('C:\\b.png','Windows'), ('a%20b.png',"write 'a b.png'"), ('../b.png','leads out')])
def test_what_a_name_looks_like(tmp_path, name, what):
    df = pd.DataFrame([[name,'cat',10,10,40,40]], columns='fname label x1 y1 x2 y2'.split())
    refused(lambda: read_df(df, tmp_path), 'row 0', what)
    refused(lambda: read_voc(voc(tmp_path, dict(a=xml('')), lines=[name])), what)
    file = coco(tmp_path, [])
    file.write_text(re.sub('0.png', lambda m: json.dumps(name)[1:-1], file.read_text()))
    refused(lambda: read_coco(tmp_path, file), 'image 0', what)
