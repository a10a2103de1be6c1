"Intervals of AP and the comparison of two detectors: against resampled lists, in every corner, and through files"
import json, time
import numpy as np, pytest
from ssd_fastai import metrics
from ssd_fastai.analysis import compare
from ssd_fastai.metrics import Evaluation, ap_draws, evaluate_detections, image_draws
from ssd_fastai.records import Detections, GroundTruth

FORMS = ('voc07', 'voc12', 'coco')
VOCAB = ['#na#', 'cup', 'plate', 'fork']
SIZE  = (300, 300)

def world(seed, images=20, objects=12, found=0.8, wrong=6, ties=False, jitter=2.):
    "Truths and detections: some objects missed, difficult, in crowds, or found twice; forks are rare"
    rng = np.random.default_rng(seed)
    dets,truths = [],[]
    for _ in range(images):
        n   = rng.integers(0, objects+1)
        xy  = rng.uniform(0, 240, (n+wrong,2))
        box = np.concatenate([xy, xy+rng.uniform(10, 50, (n+wrong,2))], 1)
        l   = rng.choice([1,2,3], n+wrong, p=[0.6,0.35,0.05])
        at  = np.flatnonzero(np.append(rng.random(n)<found, np.ones(wrong, bool)))
        at  = np.append(at, at[rng.random(len(at))<0.3])
        s   = rng.random(len(at))
        b   = box[at]+rng.normal(0, jitter, (len(at),4))
        b[:,2:] = np.maximum(b[:,2:], b[:,:2]+1)
        dets.append(Detections(b, l[at], np.ceil(s*5)/6 if ties else s, VOCAB, SIZE))
        truths.append(GroundTruth(box[:n], [VOCAB[i] for i in l[:n]], rng.random(n)<0.1, rng.random(n)<0.05, SIZE))
    return dets, truths

def listed(o, w): return [o[i] for i in np.repeat(np.arange(len(w)), w)]

@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('seed', range(4))
def test_a_draw_is_its_list(seed, ties):
    dets,truths = world(seed, ties=ties)
    ev,w = evaluate_detections(dets, truths), image_draws(len(dets), 4, seed)
    fast = {f: ap_draws(ev, w, f) for f in FORMS}
    for i,o in enumerate(w):
        rows = evaluate_detections(listed(dets, o), listed(truths, o)).rows.values()
        for f in FORMS: np.testing.assert_allclose(fast[f][i], [r[f] for r in rows], rtol=0, atol=1e-12)

def test_the_whole_set_as_a_draw():
    ev = evaluate_detections(*world(1))
    for f in FORMS:
        aps = ap_draws(ev, np.ones((2,20), np.uint8), f)
        np.testing.assert_allclose(aps, [[o[f] for o in ev.rows.values()]]*2, rtol=0, atol=1e-12)

def test_blocks_do_not_matter(monkeypatch):
    ev   = evaluate_detections(*world(2))
    want = {f: ev.interval(f, n=50) for f in FORMS}
    monkeypatch.setattr(metrics, '_BLOCK', 300)
    for f in FORMS: assert ev.interval(f, n=50)==pytest.approx(want[f], abs=1e-12)

def test_the_order_of_images_does_not_matter():
    dets,truths = world(3)
    i = np.random.default_rng(0).permutation(len(dets))
    a,b = evaluate_detections(dets, truths), evaluate_detections([dets[j] for j in i], [truths[j] for j in i])
    assert a.intervals==b.intervals

def test_the_same_seed_gives_the_same_interval():
    a,b = (evaluate_detections(*world(4)) for _ in range(2))
    assert a.interval()==b.interval() and a.interval(seed=3)==b.interval(seed=3)!=a.interval()
    assert a.interval('coco', 200, 1)==b.interval('coco', 200, 1)

def test_intervals_hold_the_value_and_are_in_every_answer():
    ev = evaluate_detections(*world(5))
    for f in FORMS:
        lo,hi = ev.interval(f)
        assert 0<=lo<=getattr(ev, f)<=hi<=1 and ev.intervals[f]==[lo,hi]
    assert (ev.per_class.low<=ev.per_class.voc12).all() and (ev.per_class.voc12<=ev.per_class.high).all()
    assert ev.intervals['per_class']['cup']['voc12']==list(ev.per_class.loc['cup', ['low','high']])
    assert '±' in repr(ev) and '95 % interval' in repr(ev) and '95 % interval' in ev._repr_html_()

def test_through_a_file(tmp_path):
    ev   = evaluate_detections(*world(6))
    back = Evaluation.load(ev.save(tmp_path/'evaluation.json'))
    assert json.loads((tmp_path/'evaluation.json').read_text())['intervals']==ev.intervals==back.intervals
    assert back.interval('coco')==ev.interval('coco') and repr(back)==repr(ev)
    assert back.per_class.equals(ev.per_class)
    with pytest.raises(ValueError, match='an evaluation from a file'): back.interval(seed=1)
    old = {k: v for k,v in ev.to_dict().items() if k!='intervals'}
    assert Evaluation.from_dict(old).intervals is None and '±' not in repr(Evaluation.from_dict(old))
    with pytest.raises(ValueError, match='an evaluation from a file'): Evaluation.from_dict(old).interval()

def test_a_rare_class_is_left_out_of_the_draws_without_it():
    truths = [GroundTruth([[0,0,9,9]], [k], size=SIZE) for k in ['cup']*9+['fork']]
    dets   = [Detections([[0,0,9,9]], [VOCAB.index(t.names[0])], [0.9], VOCAB, SIZE) for t in truths[:-1]]+[Detections.empty(VOCAB, SIZE)]
    ev,w   = evaluate_detections(dets, truths), np.array([[1]*10, [2]+[1]*8+[0]])
    aps    = ap_draws(ev, w, 'voc12')
    np.testing.assert_array_equal(aps, [[1,np.nan,0], [1,np.nan,np.nan]])
    assert metrics.draw_means(aps).tolist()==[0.5,1]
    assert ev.intervals['per_class']['plate']['voc12'] is None

NOTHING = {'no images': ([], []), 'one image': world(7, 1), 'no objects': world(8, 5, 0), 'no detections': world(9, 5, 8, 0, 0),
           'nothing at all': world(10, 5, 0, 0, 0)}

@pytest.mark.parametrize('name', NOTHING)
def test_corners(name):
    dets,truths = NOTHING[name]
    ev  = evaluate_detections(dets, truths, VOCAB)
    got = [ev.interval(f, n) for f in FORMS for n in (1000, 5)]
    if name=='no detections': assert got==[(0,0)]*6
    else: assert np.isnan(got).all()
    assert json.loads(json.dumps(ev.to_dict(), allow_nan=False)) and repr(ev) and ev._repr_html_()
    same = compare(ev, ev)
    assert str(same) and same._repr_html_() and same.chance

@pytest.mark.parametrize('bad', [0, 1, -3, 2.5, True, 'many'])
def test_draws_are_a_number(bad):
    with pytest.raises(ValueError, match='give the number of draws'): evaluate_detections(*world(1)).interval(n=bad)

def test_unknown_form():
    ev = evaluate_detections(*world(1))
    for f in (lambda: ev.interval('voc10'), lambda: compare(ev, ev, 'voc10')):
        with pytest.raises(ValueError, match='voc07, voc12, coco'): f()

# --- two detectors

def pair(seed, jitter, images=60):
    "A detector, and one on the same images whose boxes are off by `jitter` pixels more"
    dets,truths = world(seed, images)
    rng = np.random.default_rng(seed+100)
    off = [Detections(np.maximum(o.boxes.numpy()+rng.normal(0, jitter, (len(o),4)), [-9,-9,0,0]).clip(-9, 300), o.labels, o.scores, VOCAB, SIZE) for o in dets]
    return evaluate_detections(dets, truths), evaluate_detections(off, truths)

def test_compare_is_the_paired_bootstrap():
    a,b = pair(0, 3)
    w   = image_draws(60, 300, 5)[:, metrics.image_ranks(a)]
    d   = [np.nanmean(ap_draws(o, w, 'coco'), axis=1) for o in (a,b)]
    got = compare(a, b, 'coco', n=300, seed=5)
    assert got.difference==b.coco-a.coco and got.form=='coco'
    assert got.wins==np.mean(d[1]>d[0]) and got.losses==np.mean(d[1]<d[0])
    lo,hi = np.percentile(d[1]-d[0], [2,98])
    assert np.allclose(np.diff(got.interval), hi-lo, rtol=0.1)

def test_better_worse_equal():
    a,b = pair(1, 6)
    assert str(compare(a, b)).startswith('a is better by') and str(compare(b, a)).startswith('b is better by')
    assert compare(b, a).wins==compare(a, b).losses>0.95
    assert str(compare(a, a))=='a and b are equal' and compare(a, a).interval==(0,0)

def test_a_coin_is_no_gain():
    "Detectors that differ by nothing but noise are rarely called different: 60 pairs, about 5 % of them expected"
    called = 0
    for seed in range(60):
        dets,truths = world(seed, 30, 6)
        rng  = np.random.default_rng(seed+1000)
        a,b  = (evaluate_detections([Detections(o.boxes, o.labels, (o.scores.numpy()+rng.uniform(0, 0.5, len(o)))/1.5, VOCAB, SIZE) for o in dets], truths)
                for _ in range(2))
        called += not compare(a, b, n=200).chance
    assert called<=9

def test_compare_refuses_what_is_not_the_same():
    dets,truths = world(0)
    ev = evaluate_detections(dets, truths)
    moved = [GroundTruth(o.boxes*0.99, o.names, o.difficult, o.crowd, SIZE) for o in truths]
    for other,words in ((evaluate_detections(*world(1)), 'objects of the classes'), (evaluate_detections(dets, truths, size=3), 'size'),
                        (evaluate_detections(dets[:-1], truths[:-1]), 'images'), (evaluate_detections(dets, moved), 'not the same objects of class'),
                        (evaluate_detections(dets[::-1], truths[::-1]), 'in the same order'), (Evaluation.from_dict(ev.to_dict()), 'from a file'),
                        (0.5, 'no Evaluation')):
        for pair in (ev,other),(other,ev):
            with pytest.raises(ValueError, match=words) as e: compare(*pair)
            assert '\n' not in str(e.value)
    assert compare(ev, evaluate_detections(dets, truths, size=3), allow='size').chance

def test_a_thousand_draws_are_quick():
    "As many images and objects as BCCD's validation split has; seconds of the processor, since others may use it too"
    ev = evaluate_detections(*world(0, 87, 26))
    assert ev.counts['objects']>800
    t = time.process_time()
    ev.interval('voc12', seed=1)
    assert time.process_time()-t<1
