"The web server that 60_files shows, run as it stands there."
import io, json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image

pytest.importorskip('fastapi', reason='the server runs in FastAPI: pip install fastapi httpx')
pytest.importorskip('httpx', reason='the test client needs httpx: pip install httpx')
from starlette.testclient import TestClient  # noqa: E402
from ssd_fastai.detector import Detector  # noqa: E402
from ssd_fastai.files import save_detector  # noqa: E402
from ssd_fastai.model import create_ssd  # noqa: E402
from ssd_fastai.nms import Thresholds  # noqa: E402

NOTEBOOK = Path(__file__).resolve().parent.parent/'nbs/60_files.ipynb'

def shown():
    "The lines of the cell that begins with `# serve.py`"
    cells = [''.join(o['source']) for o in json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells'] if o['cell_type']=='code']
    found = [o for o in cells if '# serve.py' in o]
    assert len(found)==1
    return found[0]

@pytest.fixture(scope='module')
def served(tmp_path_factory):
    "(client, names of the script) with a detector of random weights"
    torch.manual_seed(0)
    home = tmp_path_factory.mktemp('served')
    det  = Detector(create_ssd('resnet18', 3, 64, width=32), ['#na#','cat','dog'], 64, thresholds=Thresholds(0., max_per_image=10))
    save_detector(det, home/'model.safetensors')
    names = {}
    with pytest.MonkeyPatch.context() as p:
        p.chdir(home)
        exec(compile(shown(), 'serve.py', 'exec'), names)
    return TestClient(names['app']), names

def picture(size=(90,60), seed=0, kind='PNG'):
    raw = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1],size[0],3), dtype=np.uint8)).save(raw, kind)
    return raw.getvalue()

def test_it_is_short(): assert len([o for o in shown().splitlines() if o.strip() and not o.startswith('#')]) <= 22

def test_an_image_comes_back_as_json(served):
    client, names = served
    raw = picture()
    res, d = client.post('/detect', content=raw), names['det'].detect(raw)
    assert res.status_code==200 and res.json()['size']==[60,90] and len(res.json()['objects'])==len(d)==10
    assert [o['name'] for o in res.json()['objects']]==d.names
    assert np.allclose([o['box'] for o in res.json()['objects']], d.boxes) and np.allclose([o['score'] for o in res.json()['objects']], d.scores)
    assert client.post('/detect?score=1', content=raw).json()=={'size':[60,90], 'objects':[]}

@pytest.mark.parametrize('raw,says', [(b'', 'the image of 0 bytes'), (b'GIF89a', 'not an image'), (b'<html>no</html>', 'a web page'),
                                      (picture(kind='JPEG')[:300], 'bytes')])
def test_what_is_no_image(served, raw, says):
    res = served[0].post('/detect', content=raw)
    assert res.status_code==400 and says in res.json()['error'] and '\n' not in res.json()['error']

def test_limits(served):
    client, names = served
    assert client.post('/detect', content=b'x'*(names['MAX_BYTES']+1)).status_code==413
    large = io.BytesIO()
    Image.new('1', (5001,5001)).save(large, 'PNG')
    res = client.post('/detect', content=large.getvalue())
    assert res.status_code==400 and 'refused before decoding' in res.json()['error']
    for o in ('2', 'nan', '-1'): assert client.post(f'/detect?score={o}', content=picture()).status_code==400
    assert client.post('/detect?score=high', content=picture()).status_code==422 and client.get('/detect').status_code==405

def test_eight_clients_at_once(served):
    client, names = served
    raws = [picture((40+20*i,60), i) for i in range(4)]
    want = [client.post('/detect', content=o).json() for o in raws]
    with ThreadPoolExecutor(8) as pool: got = list(pool.map(lambda o: client.post('/detect', content=o).json(), raws*6))
    for a, b in zip(got, want*6):
        assert a['size']==b['size'] and np.allclose([o['score'] for o in a['objects']], [o['score'] for o in b['objects']], atol=1e-5)
