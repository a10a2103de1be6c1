"""The page in a real browser: Chromium, driven by Playwright, against `ssd-app` in a process of its own.

Without gradio, Playwright or a browser these tests are skipped with the reason; where `CI=true`, that is a failure."""
import io, json, os, shutil, socket, struct, subprocess, sys, zipfile, zlib
from importlib.util import find_spec
from pathlib import Path
import pytest
from PIL import Image

HERE   = Path(__file__).resolve().parent
PLACES = 'chromium chromium-browser google-chrome google-chrome-stable'.split()
QUIET  = '''--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update
            --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream'''.split()

def absent(why):
    "Skip these tests; in CI, where nothing may be missing, fail"
    if os.environ.get('CI')=='true': pytest.fail(why, pytrace=False)
    pytest.skip(why)

@pytest.fixture(scope='module')
def chrome():
    exe = next(filter(None, map(shutil.which, PLACES)), None)
    if exe is None: absent(f'no browser: install one of {", ".join(PLACES)}')
    try: from playwright.sync_api import sync_playwright
    except ImportError: absent('no Playwright: pip install playwright')
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=exe, args=QUIET)
        yield browser
        browser.close()

# a page that says in a file how often the model ran; the class names are those of a hostile model
SERVER = '''
import sys
from ssd_fastai.app import ssd_app
from ssd_fastai.detector import Detector
from ssd_fastai.files import load_detector, save_detector
folder,port,golden = sys.argv[1:4]
det = load_detector(golden)
det.vocab[3] = '<b>diamond</b>'
det.info['evaluation'] = dict(voc12=0.873, coco=0.551, counts=dict(images=40, objects=123), intervals=dict(voc12=[0.81,0.92]))
save_detector(det, folder+'/model.safetensors')
forward = Detector.forward
def counted(*args):
    with open(folder+'/ran', 'a') as f: f.write('x')
    return forward(*args)
Detector.forward = counted
ssd_app([folder+'/model.safetensors', '--port', port, '--max-mb', '2', '--max-pixels', '4000000', '--examples', folder+'/examples'])
'''

class Served:
    "A running page"
    def __init__(self, folder, port): self.folder,self.url = folder,f'http://127.0.0.1:{port}'
    def ran(self): return len((self.folder/'ran').read_text()) if (self.folder/'ran').exists() else 0

def picture(path, name='alpha.png'):
    "A copy of one of the fixed detector's pictures; in alpha.png, of 96×80, it finds eleven objects of its three classes"
    shutil.copy(HERE/'golden'/'images'/name, path)
    return path

@pytest.fixture(scope='module')
def served(tmp_path_factory):
    for o in ('gradio','timm'):
        if find_spec(o) is None: absent(f'no {o}: pip install {o}')
    folder = tmp_path_factory.mktemp('page')
    (folder/'examples').mkdir()
    picture(folder/'examples'/'one.png')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env  = {**os.environ, 'PYTHONPATH':str(HERE.parent), 'PYTHONUNBUFFERED':'1'}
    proc = subprocess.Popen([sys.executable, '-c', SERVER, folder, str(port), HERE/'golden'/'detector.safetensors'], cwd=folder, env=env, text=True,
                            stdout=subprocess.PIPE, stderr=(folder/'stderr').open('w'))
    line = proc.stdout.readline()
    assert f'http://127.0.0.1:{port}' in line, (folder/'stderr').read_text()[-2000:]
    yield Served(folder, port)
    proc.terminate()
    assert proc.wait(60)==143
    failed = [o for o in (folder/'stderr').read_text().splitlines() if 'Error' in o.split(':')[0] and o[:1].strip()]
    assert not [o for o in failed if 'InvalidPathError' not in o]   # Gradio's refusal of a path that was not uploaded

@pytest.fixture
def visit(chrome, served):
    "A function that opens the page as a new visitor; whatever is asked from elsewhere than the page is a failure"
    contexts,abroad = [],[]
    def go(**kwargs):
        contexts.append(chrome.new_context(accept_downloads=True, **kwargs))
        page = contexts[-1].new_page()
        page.set_default_timeout(40_000)
        page.on('request', lambda r: None if r.url.startswith((served.url, 'data:', 'blob:')) else abroad.append(r.url))
        page.goto(served.url)
        page.wait_for_selector('#drop input[type=file]', state='attached')
        return page
    yield go
    for o in contexts: o.close()
    assert not abroad

def give(page, *files, name=None):
    "Drop files, and wait until the first (or the one called `name`) is shown"
    page.set_input_files('#drop input[type=file]', [str(o) for o in files])
    page.wait_for_function('n => document.querySelector("#said b")?.innerText === n', arg=name or Path(files[0]).name)

def n_boxes(page): return page.locator('.box').count()

def set_slider(page, which, value):
    "Move a slider as a person does by its number field"
    field = page.locator(f'#{which} input[type=number]')
    field.fill(str(value))
    field.press('Enter')

def wait_boxes(page, n):
    "Wait until the picture has `n` boxes"
    page.wait_for_function('n => document.querySelectorAll(".box").length === n', arg=n)

def download(page, kind):
    with page.expect_download() as d: page.click(f'#get-{kind}')
    return d.value.suggested_filename, Path(d.value.path()).read_bytes()

def test_the_page_says_which_model_it_has(visit):
    page = visit()
    head = page.inner_text('#head')
    for o in ('model.safetensors', 'circle, cross, <b>diamond</b>', '0.873', '0.810 to 0.920', 'COCO AP 0.551', '40 images'):
        assert o in head, o
    assert not page.locator('#head b').count()   # a class name is text and not HTML

def test_upload_and_sliders(visit, served, tmp_path):
    page,before = visit(),served.ran()
    give(page, picture(tmp_path/'a.png'))
    assert n_boxes(page)==11 and served.ran()==before+1
    page.wait_for_function('() => /circle.*0.849/s.test(document.querySelector("#table").innerText)')
    scores = [float(o.split()[-1]) for o in page.locator('.box b').all_text_contents()]
    set_slider(page, 'score', 0.5)
    wait_boxes(page, sum(o>0.5 for o in scores))
    set_slider(page, 'iou', 0.05)
    page.wait_for_function('() => document.querySelectorAll(".box").length < 6')
    apart = n_boxes(page)
    set_slider(page, 'iou', 0.95)
    page.wait_for_function('n => document.querySelectorAll(".box").length > n', arg=apart)
    set_slider(page, 'iou', 0.5)
    set_slider(page, 'score', 0.11)
    wait_boxes(page, 11)
    assert served.ran()==before+1   # the model ran once, whatever the sliders did

def test_classes(visit, served, tmp_path):
    page = visit()
    give(page, picture(tmp_path/'a.png'))
    before = served.ran()
    page.get_by_label('<b>diamond</b>').uncheck()
    wait_boxes(page, 5)
    page.get_by_label('cross').uncheck()
    wait_boxes(page, 2)
    assert all(o.startswith('circle ') for o in page.locator('.box b').all_text_contents())
    doc = json.loads(download(page, 'coco')[1])
    assert {o['category_id'] for o in doc['annotations']}=={1} and served.ran()==before

def test_downloads_of_one_image(visit, tmp_path):
    page = visit()
    give(page, picture(tmp_path/'a.png'))
    n = n_boxes(page)
    name,raw = download(page, 'coco')
    doc = json.loads(raw)
    assert name=='detections.json' and len(doc['annotations'])==n
    assert doc['images']==[dict(id=1, file_name='a.png', height=80, width=96)]
    assert [o['name'] for o in doc['categories']]==['circle','cross','<b>diamond</b>']
    name,raw = download(page, 'yolo')
    rows = [[float(v) for v in o.split()] for o in raw.decode().splitlines()]
    assert name=='a.txt' and len(rows)==n and all(len(o)==6 and 0<=min(o[1:]) and max(o[1:])<=1 for o in rows)
    name,raw = download(page, 'png')
    im = Image.open(io.BytesIO(raw))
    assert name.endswith('.png') and im.size==(96,80)
    assert im.tobytes()!=Image.open(tmp_path/'a.png').convert('RGB').tobytes()

def test_several_images(visit, tmp_path):
    page  = visit()
    files = [picture(tmp_path/f'{o}.png', name) for o,name in zip('abc', ('alpha.png','odd.png','palette.png'))]
    give(page, *files)
    page.locator('#strip button').nth(1).click()
    page.wait_for_function('() => document.querySelector("#said b").innerText === "b.png"')
    name,raw = download(page, 'yolo')
    with zipfile.ZipFile(io.BytesIO(raw)) as z: assert sorted(z.namelist())==['classes.txt', *(f'labels/{o}.txt' for o in 'abc')]
    _,raw = download(page, 'coco')
    assert [o['width'] for o in json.loads(raw)['images']]==[Image.open(o).width for o in files]

def test_examples_and_webcam(visit):
    page = visit(permissions=['camera'])
    page.get_by_role('tab', name='Examples').click()
    page.locator('#examples button img').first.click()
    page.wait_for_function('() => document.querySelector("#said b")?.innerText === "one.png"')
    page.get_by_role('tab', name='Webcam').click()
    page.get_by_text('Click to Access Webcam').click()
    page.wait_for_function('() => document.querySelector("#camera video")?.videoWidth > 0')
    page.get_by_label('capture photo').click()
    page.wait_for_function('() => !["one.png", undefined].includes(document.querySelector("#said b")?.innerText)')

def wrong(page):
    "The sentence about an error, in the page or in Gradio's note"
    return page.locator('.wrong, .toast-body').first.inner_text()

def one_sentence(text): return 'Traceback' not in text and '/tmp' not in text and len(text)<400

def test_broken_file(visit, tmp_path):
    page = visit()
    (tmp_path/'broken.jpg').write_bytes(b'no picture at all')
    page.set_input_files('#drop input[type=file]', str(tmp_path/'broken.jpg'))
    page.wait_for_selector('.wrong')
    assert 'broken.jpg: not an image' in wrong(page) and one_sentence(wrong(page))
    give(page, tmp_path/'broken.jpg', picture(tmp_path/'good.png'), name='good.png')  # the good one is shown
    assert 'broken.jpg' in wrong(page)

def huge_png(path, side):
    "A small file that announces a huge picture"
    chunk = lambda k,b: struct.pack('>I', len(b))+k+b+struct.pack('>I', zlib.crc32(k+b))
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0))
                     + chunk(b'IDAT', zlib.compress(bytes(100))) + chunk(b'IEND', b''))

def test_huge_files(visit, served, tmp_path):
    page,before = visit(),served.ran()
    huge_png(tmp_path/'bomb.png', 30_000)
    page.set_input_files('#drop input[type=file]', str(tmp_path/'bomb.png'))
    page.wait_for_selector('.wrong')
    assert 'refused' in wrong(page) and one_sentence(wrong(page))
    page = visit()
    (tmp_path/'large.jpg').write_bytes(os.urandom(3*2**20))
    page.set_input_files('#drop input[type=file]', str(tmp_path/'large.jpg'))
    page.wait_for_selector('.wrong, .toast-body')
    assert one_sentence(wrong(page)) and served.ran()==before

def test_two_visitors_at_once(visit, tmp_path):
    one,two = visit(),visit()
    for page,name in ((one,'first.png'), (two,'second.png')):
        page.set_input_files('#drop input[type=file]', str(picture(tmp_path/name)))
    for page,name in ((one,'first.png'), (two,'second.png')):
        page.wait_for_function('n => document.querySelector("#said b")?.innerText === n', arg=name)
    set_slider(one, 'score', 0.99)
    wait_boxes(one, 0)
    assert n_boxes(two)==11
    assert json.loads(download(two, 'coco')[1])['images'][0]['file_name']=='second.png'

def raw_get(url, path):
    "Status and body of a request whose path is sent as it is"
    host,port = url[7:].split(':')
    with socket.create_connection((host, int(port)), timeout=20) as s:
        s.sendall(f'GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n'.encode())
        raw = b''.join(iter(lambda: s.recv(65536), b''))
    return int(raw.split(None, 2)[1]), raw

def test_no_path_of_the_server_can_be_read(served):
    model  = served.folder/'model.safetensors'
    paths  = ['/etc/passwd', str(model), f'{HERE}/test_app.py', 'ran', './ran', '../etc/passwd', '/proc/self/environ', 'https://127.0.0.1/',
              f'{served.folder}/examples/one.png', '%2fetc%2fpasswd', '//etc/passwd', '/tmp/../etc/passwd', '..%2f..%2fetc%2fpasswd']
    for start in ('/file=', '/gradio_api/file=', '/gradio_api/file/', '/gradio_api//file=', '/static/', '/assets/', '/gradio_api/proxy='):
        for o in paths:
            status,raw = raw_get(served.url, start+o)
            assert status in (307,400,403,404,405,422) and b'root:' not in raw and b'ssd_fastai' not in raw, (start, o, status)
    for o in ('/docs', '/openapi.json', '/redoc'): assert raw_get(served.url, o)[0] in (403,404)

def test_a_named_path_is_not_taken_for_an_upload(served):
    "A request that says that its upload lies at a path of the server, as the page's own script would send it"
    import httpx
    config = httpx.get(f'{served.url}/config').json()
    number = [o['id'] for o in config['dependencies'] if [t[1] for t in o['targets']]==['upload']][0]
    before = served.ran()
    for path in (served.folder/'examples'/'one.png', Path('/etc/passwd')):
        files = [dict(path=str(path), meta={'_type':'gradio.FileData'}, orig_name='x.png', url=f'file://{path}')]
        ask   = dict(data=[files, 0.11, 0.5, ['circle']], fn_index=number, session_hash='abc', trigger_id=None, event_data=None)
        httpx.post(f'{served.url}/gradio_api/queue/join', json=ask)
        text  = ''
        with httpx.stream('GET', f'{served.url}/gradio_api/queue/data?session_hash=abc', timeout=20) as r:
            for line in r.iter_lines():
                text += line
                if 'process_completed' in line or 'close_stream' in line: break
        assert '"success":true' not in text.replace(' ', '') and 'root:' not in text and 'base64' not in text
    assert served.ran()==before

def script(*args, cwd, **kwargs):
    return subprocess.run([sys.executable, '-c', 'from ssd_fastai.app import ssd_app; ssd_app()', *args], cwd=cwd, text=True,
                          capture_output=True, timeout=120, env={**os.environ, 'PYTHONPATH':str(HERE.parent)}, **kwargs)

def test_without_a_model_it_says_how_to_get_one(tmp_path):
    res = script(cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert res.returncode==2 and 'ssd-demo' in res.stderr and res.stderr.count('\n')==1

def test_a_port_in_use(served, tmp_path):
    res = script(str(served.folder/'model.safetensors'), '--port', served.url.rsplit(':')[-1], cwd=tmp_path)
    assert res.returncode==2 and 'in use' in res.stderr and res.stderr.count('\n')==1
