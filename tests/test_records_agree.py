"""One rule for boxes: whatever is read by training counts in evaluation, and the reverse. What training would drop is refused by both.

Random boxes (sound, inverted, flat, thin, across the edge, outside) go through `DetectionDataLoaders` on one side and
`evaluate_detections` on the other."""
import contextlib, io
import numpy as np, pytest, torch

pytest.importorskip('hypothesis', reason='the boxes are drawn by hypothesis: pip install hypothesis')
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from ssd_fastai.data import DetectionDataLoaders
from ssd_fastai.metrics import evaluate_detections
from ssd_fastai.records import Detections, GroundTruth

SIZES  = [(60,80), (33,7), (40,3000), (600,450)] # (height, width)
VOCAB  = ['#na#','cat','dog']
OFTEN  = settings(max_examples=120, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))

@pytest.fixture(scope='module')
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp('agree')
    for h,w in SIZES: Image.new('RGB', (w,h), (90,120,150)).save(path/f'{h}x{w}.png')
    return {o: path/f'{o[0]}x{o[1]}.png' for o in SIZES}

@st.composite
def boxes_of(draw, size, most=5):
    "(box, name, difficult) of one image: some of the boxes no object can have"
    h,w = size
    edge  = lambda n: st.one_of(st.integers(-3, n+3), st.floats(-3, n+3, width=32))
    thin  = st.sampled_from([0., 1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.05, 0.1, 1.])
    def one():
        x,y = draw(edge(w)),draw(edge(h))
        x2 = draw(st.one_of(edge(w), thin.map(lambda t: x+t)))
        y2 = draw(st.one_of(edge(h), thin.map(lambda t: y+t)))
        if draw(st.integers(0, 7)): x,y,x2,y2 = min(x, x2),min(y, y2),max(x, x2),max(y, y2)
        return [x, y, x2, y2],draw(st.sampled_from(VOCAB[1:])),draw(st.booleans())
    return [one() for _ in range(draw(st.integers(0, most)))]

def or_why(f):
    "(what `f` returns, None), or (None, its `ValueError` of one line)"
    try: return f(),None
    except ValueError as e:
        assert type(e) is ValueError and len(str(e).splitlines())==1
        return None,str(e)

def record(objects, size, file):
    return GroundTruth([o[0] for o in objects], [o[1] for o in objects], [o[2] for o in objects], size=size, file=file)

def nothing(size, file=None): return Detections.empty(VOCAB, size, file)

def learned(recs, method):
    "Objects per class and difficulty that training sees, from the training batch and from the validation batch"
    with contextlib.redirect_stdout(io.StringIO()): # it says that both splits have the same images
        dls = DetectionDataLoaders.from_records(recs, recs, size=64, bs=len(recs), method=method, augment=None, vocab=VOCAB,
                                                num_workers=0, device='cpu', verify=False)
    out = []
    for dl in dls.train,dls.valid:
        _,_,labels,difficult = dl.one_batch()
        out.append([[int(((labels==l) & (difficult==d)).sum()) for d in (False,True)] for l in (1,2)])
    return out

def counted(recs):
    "The same from an evaluation"
    ev = evaluate_detections([nothing(o.size, o.file) for o in recs], recs, VOCAB)
    return [[ev.rows[k]['objects'], ev.rows[k]['difficult']] for k in VOCAB[1:]]

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('method', ['squish','pad'])
def test_what_training_reads_counts_in_evaluation(files, method):
    seen = dict(kept=0, refused=0)
    @OFTEN
    @given(st.data())
    def check(data):
        recs = []
        for size in SIZES:
            objects = data.draw(boxes_of(size))
            sound = [o for o in objects if or_why(lambda: record([o], size, files[size]))[1] is None]
            seen['kept'] += len(sound); seen['refused'] += len(objects)-len(sound)
            whole,why = or_why(lambda: record(objects, size, files[size]))
            assert (why is None)==(len(sound)==len(objects)), 'a record is refused for another reason than its objects'
            recs.append(record(sound, size, files[size]))
        want = counted(recs)
        assert sum(map(sum, want))==sum(map(len, recs))
        assert learned(recs, method)==[want, want]
    check()
    assert seen['kept']>100 and seen['refused']>100

def test_plain_truths_follow_the_same_rule():
    "(boxes, labels, difficult) in an evaluation: refused where the record is, the same numbers where it is not"
    seen = {True:0, False:0}
    @OFTEN
    @given(st.sampled_from(SIZES).flatmap(lambda o: st.tuples(st.just(o), boxes_of(o, most=2))))
    def check(x):
        size,objects = x
        rec,why = or_why(lambda: record(objects, size, None))
        plain   = ([o[0] for o in objects], [VOCAB.index(o[1]) for o in objects], [o[2] for o in objects])
        ev,no   = or_why(lambda: evaluate_detections([nothing(size)], [plain], VOCAB))
        assert (rec is None)==(ev is None), (why, no)
        seen[rec is None] += 1
        if rec is None: assert no.startswith('truths, image 0: '); return
        perfect = Detections(rec.boxes, rec.labels(VOCAB), torch.linspace(1, .5, len(rec)), VOCAB, size)
        a,b = (evaluate_detections([perfect], [o], VOCAB).per_class.to_numpy(float) for o in (rec, plain))
        np.testing.assert_array_equal(a, b)
    check()
    assert min(seen.values())>20

def test_every_sound_object_can_be_found():
    "Perfect detections of what a record keeps have AP 1: no object is there that a detector could not find"
    @OFTEN
    @given(st.sampled_from(SIZES).flatmap(lambda o: st.tuples(st.just(o), boxes_of(o))))
    def check(x):
        size,objects = x
        objects = [(b,n,False) for b,n,_ in objects if or_why(lambda: record([(b,n,False)], size, None))[1] is None]
        rec = record(objects, size, None)
        if len({*map(tuple, rec.boxes.tolist())})<len(rec) or not len(rec): return # of two objects in one place VOC's rule finds one
        perfect = Detections(rec.boxes, rec.labels(VOCAB), torch.linspace(1, .5, len(rec)), VOCAB, size)
        assert evaluate_detections([perfect], [rec], VOCAB).map==1
    check()
