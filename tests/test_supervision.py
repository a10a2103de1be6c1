"`Detections.to_supervision`: the values survive the way there and back."
import warnings
import numpy as np, pytest, torch
from ssd_fastai.records import Detections

with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    sv = pytest.importorskip('supervision', reason='the other library: pip install supervision')
VOCAB = ['#na#', 'cat', 'dog', 'très petit']

def back(o, size): return Detections(o.xyxy, o.class_id+1, o.confidence, VOCAB, size)

@pytest.mark.parametrize('n', [0, 1, 40])
def test_there_and_back(n):
    g = torch.Generator().manual_seed(n)
    a = torch.rand(n, 2, generator=g)*50
    d = Detections(torch.cat([a, a+1+torch.rand(n, 2, generator=g)*40], 1), torch.randint(1, 4, (n,), generator=g), torch.rand(n, generator=g), VOCAB, (90,100))
    o = d.to_supervision()
    assert isinstance(o, sv.Detections) and len(o)==n and list(o['class_name'])==d.names==[VOCAB[1:][i] for i in o.class_id]
    assert o.xyxy.shape==(n,4) and o.class_id.dtype.kind=='i'
    b = back(o, d.size)
    assert torch.equal(b.boxes, d.boxes) and torch.equal(b.labels, d.labels) and torch.equal(b.scores, d.scores)

def test_it_can_be_used():
    "Chosen by score, suppressed and counted by the other library"
    d = Detections([[10,10,30,30], [11,10,31,30], [50,50,70,70]], [1,1,3], [0.9,0.8,0.6], VOCAB, 100)
    o = d.to_supervision()
    assert len(o[o.confidence>0.7])==2 and len(o.with_nms(0.5))==2 and np.allclose(o.area, 400)
    zone = sv.PolygonZone(np.array([[40,40],[90,40],[90,90],[40,90]]))
    assert zone.trigger(o).tolist()==[False,False,True]
