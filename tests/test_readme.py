"""Every block of the README, run in its order as it stands, in a folder that holds what the README speaks of.

Only how long it trains is cut (`SHORTER`), and what needs a network is served from this machine: a clone comes from a local repository, the weights of
resnet34 from torch's own cache. `pip` is asked whether it could install (`--dry-run`), `make` what it would do (`-n`)."""
import json, os, re, shutil, subprocess, sys
from pathlib import Path
import pytest

ROOT    = Path(__file__).resolve().parent.parent
TEXT    = (ROOT/'README.md').read_text(encoding='utf-8')
BLOCKS  = re.findall(r'^```(\w+)\n(.*?)^```', TEXT, re.M | re.S)
SHORTER = [(r'--minutes [\d.]+', '--epochs 1'), (r'--epochs \d+', '--epochs 1'), (r'fine_tune\(\d+\)', 'fine_tune(1)'),
           (r'lr_find\(\)', 'lr_find(num_it=10)'), (r'^pip install', 'pip install --dry-run --no-deps --no-build-isolation --quiet'), (r'^make', 'make -n')]
LONG    = pytest.mark.skipif(not os.environ.get('SSD_FASTAI_SLOW'), reason='trains for minutes: `make slow` runs it')

def shorter(code):
    for a,b in SHORTER: code = re.sub(a, b, code, flags=re.M)
    return code

def environment(home):
    "As a user has it; git finds the two repositories on this machine"
    env = {**os.environ, 'HOME':str(home), 'TORCH_HOME':str(home/'torch'), 'OMP_NUM_THREADS':'1', 'MPLBACKEND':'Agg',
           'PATH':os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])}
    pairs = [('ssd-fastai/ssd_fastai', ROOT), ('Shenggan/BCCD_Dataset', home/'bccd_origin')]
    for i,(name,path) in enumerate(pairs):
        env |= {f'GIT_CONFIG_KEY_{i}':f'url.{path}.insteadOf', f'GIT_CONFIG_VALUE_{i}':f'https://github.com/{name}'}
    return {**env, 'GIT_CONFIG_COUNT':str(len(pairs)+1), f'GIT_CONFIG_KEY_{len(pairs)}':'safe.directory', f'GIT_CONFIG_VALUE_{len(pairs)}':'*'}

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A home, and in it a folder `here` with `photos` and `photo.jpg`; beside it the repository that BCCD comes from"
    import torch
    from torchvision.models import resnet34
    from PIL import Image
    from ssd_fastai.formats import parse_voc # noqa: F401, gives records `to_labelme`
    from ssd_fastai.readers import read_split
    from ssd_fastai.synth import synth_voc
    home = tmp_path_factory.mktemp('home')
    here = home/'here'
    (here/'photos').mkdir(parents=True)
    drawn = synth_voc(home/'drawn', n=30, seed=1)
    for o in read_split(drawn, 'all', verbose=False):
        shutil.copy(o.file, here/'photos')
        (here/'photos'/f'{Path(o.file).stem}.json').write_text(o.to_labelme())
    Image.open(o.file).save(here/'photo.jpg')
    cells = synth_voc(home/'bccd_origin'/'BCCD', n=60, seed=2)
    for xml in (cells/'Annotations').glob('*.xml'):
        text = xml.read_text()
        for a,b in (('circle','RBC'), ('square','WBC'), ('triangle','Platelets')): text = text.replace(f'<name>{a}</name>', f'<name>{b}</name>')
        xml.write_text(text)
    git = lambda *a: subprocess.run(['git', '-C', home/'bccd_origin', '-c', 'user.name=a', '-c', 'user.email=a@b', *a], check=True, capture_output=True)
    git('init', '-q'); git('add', '-A'); git('commit', '-qm', 'cells')
    (home/'torch/hub/checkpoints').mkdir(parents=True)
    torch.save(resnet34(num_classes=1000).state_dict(), home/'torch/hub/checkpoints/resnet34-b627a593.pth')
    return here

def run(place, args, **kwargs):
    p = subprocess.run(args, cwd=place, env=environment(place.parent), capture_output=True, text=True, timeout=600, **kwargs)
    assert not p.returncode, f'{args[-1] if args[0]=="bash" else "Python"}\n{p.stdout[-3000:]}\n{p.stderr[-3000:]}'
    return p.stdout

def test_blocks_are_of_two_kinds(): assert {k for k,_ in BLOCKS} == {'python', 'bash'}

@LONG
def test_shell_lines(place):
    "Each line as it stands, in order; `cd` and what later lines need are kept by one shell"
    script = '\n'.join(shorter(code) for kind,code in BLOCKS if kind=='bash')
    lines  = [o for o in script.splitlines() if o.strip()]
    served = [o for o in lines if o.startswith('ssd-app')]                  # serves until it is stopped: tests/test_app.py
    script = '\n'.join('make -n demo >/dev/null' if o=='make -n demo' else o for o in lines if o not in served)
    back   = script.replace('cd ssd_fastai\n', '', 1)                       # the clone is of what is committed; the scripts are this checkout's
    back   = back.replace('make -n', f'make -C {ROOT} -n').replace('quiet .', f'quiet {ROOT}')
    run(place, ['bash', '-euo', 'pipefail', '-c', back])
    assert len(served)==1 and (place/'runs/photos/model.safetensors').exists()
    for o in ('drawn/photo.png', 'labels/photo.txt', 'test.json', 'found.json', 'runs/photos/valid.txt', 'ssd_fastai/README.md'):
        assert (place/o).exists(), o
    assert 0 <= json.loads((place/'test.json').read_text())['voc12'] <= 1

@LONG
def test_python_blocks(place):
    "In one session, as a reader pastes them"
    if not (place/'BCCD').exists(): shutil.copytree(place.parent/'bccd_origin/BCCD', place/'BCCD')
    code = '\n'.join(shorter(code) for kind,code in BLOCKS if kind=='python')
    run(place, [sys.executable, '-W', 'ignore', '-c', code])
    assert (place/'cells.safetensors').exists() and (place/'cells.onnx').exists()

def test_extras_in_the_text_exist():
    from importlib.metadata import metadata
    have = set(metadata('ssd_fastai').get_all('Provides-Extra'))
    assert set(re.findall(r"'\.\[(\w+)\]'|ssd_fastai\[(\w+)\]", TEXT)) and {a or b for a,b in re.findall(r"'\.\[(\w+)\]'|ssd_fastai\[(\w+)\]", TEXT)} <= have

def test_commands_in_the_text_exist():
    "Every `python benchmarks/x.py` and every script that is named"
    assert all((ROOT/o).exists() for o in re.findall(r'`python (benchmarks/\w+\.py)', TEXT))
    from importlib.metadata import entry_points
    have = {o.name for o in entry_points(group='console_scripts')}
    assert set(re.findall(r'\bssd-[a-z]+\b', re.sub(r'https?://\S+|ssd-fastai', '', TEXT))) <= have
