"The package as a whole: what imports what, which names it brings, what is built from settings.ini."
import ast, importlib, json, shutil, subprocess, sys, sysconfig, tarfile, venv, zipfile
from collections import Counter
from configparser import ConfigParser
from email import message_from_string
from importlib.metadata import EntryPoint
from pathlib import Path
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LIB  = ROOT/'ssd_fastai'

sys.path.insert(0, str(ROOT/'tools'))
from rooms import UPWARD, drawing, imported, ours, rooms  # noqa: E402

# module -> what it may import, and with it all that these may import; None: everything above. Order counts: only downward.
LAYERS = dict(
    boxes=[], images=[], cache=[], resize=['boxes'], augment=['boxes'], records=['boxes'], tiles=['records'], draw=['records', 'images'], formats=['records'],
    anchors=['resize', 'draw'], match=['draw'], losses=['match'], nms=['draw'],
    metrics=['records'], analysis=['metrics', 'draw', 'nms'],
    synth=[], folders=['formats', 'images'], readers=['folders'], splits=['readers'], data=['splits', 'cache', 'resize', 'augment', 'draw', 'tiles'], doctor=['splits', 'draw', 'resize'],
    results=['readers'],
    head=['anchors'], classic=['head', 'match', 'nms'], body=[], pretrained=['anchors', 'body'], model=['head', 'classic', 'pretrained'], alignment=['model', 'draw'],
    detector=['model', 'nms', 'resize', 'images', 'tiles', 'metrics', 'analysis'], ceiling=['detector', 'metrics'],
    callbacks=['data', 'losses', 'detector', 'metrics'], files=['detector'], onnx=['files'], processes=[],
    learner=None, interpret=None, distributed=None, runs=None, video=['draw', 'files'], cli=None, app=None)
WITH_FASTAI  = ['data', 'callbacks', 'learner', 'interpret', 'distributed', 'runs']
LIGHT        = [o for o in rooms() if o not in WITH_FASTAI]
MATPLOTLIB   = ['draw', 'analysis', 'alignment', 'anchors', 'match', 'nms', 'cli'] # of the light ones, and inside functions
NOT_IN_ALL   = ['processes', 'runs', 'results', 'cli', 'app']                     # for the console and the browser
def modules(): return [o.stem for o in sorted(LIB.glob('*.py')) if o.stem not in ('__init__', '_modidx', 'all')]

def settings():
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']

def scripts(cfg): return dict(o.strip().split('=') for o in cfg['console_scripts'].splitlines() if o.strip())

def python(code): return subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=300)

def reach(module):
    "The modules of ours that `module` may import."
    above = list(LAYERS)[:list(LAYERS).index(module)]
    if LAYERS[module] is None: return set(above)
    return set(LAYERS[module]).union(*map(reach, LAYERS[module])) & set(above)

# --- imports

def test_light_modules_load_nothing_heavy():
    "Each in turn, in one fresh process: neither fastai nor pandas nor pyplot"
    code = ('import importlib,json,sys\nout={}\n'
            f'for o in {LIGHT}:\n'
            "    importlib.import_module(f'ssd_fastai.{o}')\n"
            "    out[o] = [k for k in ('fastai','pandas','matplotlib.pyplot') if k in sys.modules]\n"
            'print(json.dumps(out))')
    res = python(code)
    assert not res.returncode, res.stderr[-2000:]
    out = json.loads(res.stdout.splitlines()[-1])
    assert not {k: v for k, v in out.items() if v}, f'loaded by importing them: {out}'

def test_serving_loads_no_evaluator():
    "A detector that was opened from a file needs neither metrics nor analysis"
    res = python("import sys, ssd_fastai.files, ssd_fastai.detector\n"
                 "print([o for o in ('ssd_fastai.metrics','ssd_fastai.analysis') if o in sys.modules])")
    assert res.stdout.strip()=='[]', res.stdout + res.stderr[-500:]

def test_synth_needs_no_torch():
    res = python("import sys, ssd_fastai.synth; sys.exit('torch' in sys.modules)")
    assert not res.returncode, 'importing ssd_fastai.synth loads torch ' + res.stderr[-500:]

@pytest.mark.parametrize('module', modules())
def test_imports_point_downward(module):
    assert module in LAYERS, f'{module} has no place in LAYERS: give it one'
    mine = ours(module) - {b for a, b in UPWARD if a == module}
    assert mine <= reach(module), f'{module} imports {sorted(mine-reach(module))}, may import {sorted(reach(module))}'
    roots = {o.split('.')[0] for o in imported(module)}
    if module in LIGHT: assert 'fastai' not in roots
    if module in LIGHT and module not in MATPLOTLIB: assert 'matplotlib' not in roots, 'draw through `draw`'
    if module == 'synth': assert roots - set(sys.stdlib_module_names) <= {'numpy', 'PIL'}

def test_the_drawing_shows_the_imports():
    "CONTRIBUTING's drawing is what `tools/rooms.py` makes of the imports"
    assert drawing() in (ROOT/'CONTRIBUTING.md').read_text(encoding='utf-8'), 'run make sync'

@pytest.mark.parametrize('module', modules())
def test_no_private_name_of_another_module(module):
    "Neither by `from … import _x` nor as an attribute of another module of this package"
    tree = ast.parse((LIB/f'{module}.py').read_text(encoding='utf-8'))
    bad  = [a.name for o in ast.walk(tree) if isinstance(o, ast.ImportFrom) and (o.level or (o.module or '').startswith('ssd_fastai'))
            for a in o.names if a.name.startswith('_') and not a.name.startswith('__')]
    assert not bad, f'{module} imports the private {bad}: make it public in the lower module'

def test_private_names_have_one_meaning():
    "A private name that two modules define means two things: give one of them another name"
    count = Counter()
    for m in modules():
        for o in ast.parse((LIB/f'{m}.py').read_text(encoding='utf-8')).body:
            if isinstance(o, (ast.FunctionDef, ast.ClassDef)) and not is_patch(o): count.update({o.name})
            if isinstance(o, ast.Assign): count.update({n.id for t in o.targets for n in ast.walk(t) if isinstance(n, ast.Name)})
    assert not [n for n, k in count.items() if k > 1 and n.startswith('_') and not n.startswith('__')]

def is_patch(fn):
    "Whether a definition is a method that `@patch` puts onto a class"
    return any('patch' in ast.unparse(o) for o in fn.decorator_list)

# --- names

def test_names():
    "No public name is given twice, none hides one of fastai's, and `all` has them all beside fastai's own."
    theirs = vars(importlib.import_module('fastai.vision.all'))
    mods   = {o: importlib.import_module(f'ssd_fastai.{o}') for o in modules()}
    count  = Counter(n for m in mods.values() for n in m.__all__)
    assert not [n for n, k in count.items() if k > 1], 'in two modules'
    assert not [n for n in count if n in theirs], "these hide fastai's"
    both = vars(importlib.import_module('ssd_fastai.all'))
    assert not [n for n, v in theirs.items() if not n.startswith('_') and both.get(n) is not v], "fastai's, changed by `all`"
    assert not [n for k, m in mods.items() if k not in NOT_IN_ALL for n in m.__all__ if both.get(n) is not getattr(m, n)]

# --- settings.ini

@pytest.mark.parametrize('name,target', scripts(settings()).items())
def test_console_script(name, target):
    assert callable(EntryPoint(name, target, 'console_scripts').load())

@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "sdist and wheel of a copy whose settings.ini says another version and one requirement more, built without network."
    src, out = tmp_path_factory.mktemp('src'), tmp_path_factory.mktemp('dist')
    for o in ('settings.ini', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE'): shutil.copy(ROOT/o, src)
    shutil.copytree(LIB, src/'ssd_fastai', ignore=shutil.ignore_patterns('__pycache__'))
    ini  = (src/'settings.ini').read_text(encoding='utf-8').replace('\nrequirements = ', '\nrequirements = tomli>=2 ')
    (src/'settings.ini').write_text(ini.replace(f"\nversion = {settings()['version']}", '\nversion = 9.8.7'), encoding='utf-8')
    res = subprocess.run([sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, src], capture_output=True, text=True)
    assert not res.returncode, (res.stdout+res.stderr)[-2000:]
    return out

def test_sdist_is_complete(built):
    with tarfile.open(built/'ssd_fastai-9.8.7.tar.gz') as f: names = {o.partition('/')[2] for o in f.getnames()}
    assert {'settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'} <= names
    assert {f'ssd_fastai/{o.name}' for o in LIB.glob('*.py')} <= names

def test_wheel_says_what_settings_say(built):
    cfg = settings()
    with zipfile.ZipFile(built/'ssd_fastai-9.8.7-py3-none-any.whl') as f:
        read = lambda o: f.read(f'ssd_fastai-9.8.7.dist-info/{o}').decode()
        meta, entry = message_from_string(read('METADATA')), ConfigParser()
        entry.read_string(read('entry_points.txt'))
    assert (meta['Name'], meta['Version'], meta['Summary']) == ('ssd_fastai', '9.8.7', cfg['description'])
    assert meta['Requires-Python'] == f">={cfg['min_python']}"
    assert dict(entry['console_scripts']) == scripts(cfg)
    assert 'ssd_fastai' in entry['nbdev']
    reqs  = [Requirement(o) for o in meta.get_all('Requires-Dist')]
    told  = lambda rs: {(o.name, o.specifier) for o in rs}
    asked = lambda key: told(map(Requirement, cfg[key].split()))
    assert told(o for o in reqs if not o.marker) == asked('requirements') | told([Requirement('tomli>=2')])
    for k in ('lite', 'export', 'distributed', 'app', 'video', 'dev'):
        extra = told(o for o in reqs if o.marker and o.marker.evaluate({'extra': k}))
        assert asked(f'{k}_requirements') <= extra, k
    assert set(meta.get_all('Provides-Extra')) == {'lite', 'export', 'distributed', 'app', 'video', 'dev'}

def test_the_wheel_runs_the_demo(built, tmp_path):
    "In an empty environment, which borrows the dependencies from this one but has the package from the wheel alone"
    home = tmp_path/'env'
    venv.create(home, with_pip=True)
    exe  = home/'bin'/'python'
    site = subprocess.check_output([exe, '-c', 'import sysconfig; print(sysconfig.get_paths()["purelib"])'], text=True).strip()
    pip  = [exe, '-m', 'pip', 'install', '--quiet', '--no-index', '--no-deps', built/'ssd_fastai-9.8.7-py3-none-any.whl']
    subprocess.run(pip, check=True)
    (Path(site)/'borrowed.pth').write_text(sysconfig.get_paths()['purelib']+'\n')
    res = subprocess.run([home/'bin'/'ssd-demo', '--n', '40', '--epochs', '1', '--size', '64'], cwd=tmp_path, capture_output=True, text=True)
    assert not res.returncode, (res.stdout+res.stderr)[-2000:]
    assert {o.name for o in (tmp_path/'runs/demo').iterdir()} >= {'model.safetensors', 'evaluation.json', 'detections.png', 'pr_curve.png'}
    where = subprocess.check_output([exe, '-c', 'import ssd_fastai as s; print(s.__version__, s.__file__)'], cwd=tmp_path, text=True)
    assert where.startswith('9.8.7') and str(home) in where

def test_pyproject_repeats_nothing():
    tables = [o.strip() for o in (ROOT/'pyproject.toml').read_text(encoding='utf-8').splitlines() if o.startswith('[')]
    assert sorted(tables) == ['[build-system]', '[tool.nbdev]']
