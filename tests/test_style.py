"House style that can be counted: short functions, cells and lines, definitions that are used at once, no paths of somebody's machine."
import ast, json, re, sys
from pathlib import Path
import pytest

ROOT      = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb'))
sys.path.insert(0, str(ROOT/'tools'))
from notebooks import broken, counted  # noqa: E402

MACHINE   = re.compile(r'/(home|root|tmp|Users|workspace|work|mnt|opt)/|/var/folders/|[A-Z]:\\+Users|\.venv\b|site-packages')

def cells(file): return [{**o, 'source': ''.join(o['source'])} for o in json.loads(file.read_text(encoding='utf-8'))['cells']]

def code(src): return [l for l in src.splitlines() if l.strip() and not l.strip().startswith('#')]

def body_lines(fn, src):
    "Lines of code of a function, without signature, docstring, comments and blank lines."
    body = fn.body[1:] if ast.get_docstring(fn, clean=False) is not None else fn.body
    return len(code('\n'.join(src.splitlines()[body[0].lineno-1:fn.end_lineno]))) if body else 0

@pytest.mark.parametrize('file', NOTEBOOKS, ids=lambda o: o.stem)
def test_exported_functions_are_short(file):
    long = []
    for src in (o['source'] for o in cells(file) if o['cell_type']=='code' and re.match(r'#\s*\|\s*exporti?\b', o['source'])):
        fns   = [o for o in ast.walk(ast.parse(src)) if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef))]
        long += [f'{o.name}: {n} lines' for o in fns if (n := body_lines(o, src)) > 25]
    assert not long

@pytest.mark.parametrize('file', [o for o in NOTEBOOKS if o.stem!='index'], ids=lambda o: o.stem)
def test_definitions_are_shown_at_work(file):
    "Used within two cells, few in a row, short cells: see tools/notebooks.py"
    assert not broken(*counted(file))

@pytest.mark.parametrize('file', sorted((ROOT/'ssd_fastai').glob('*.py')), ids=lambda o: o.stem)
def test_lines_are_at_most_120_columns(file):
    if file.stem=='_modidx': pytest.skip('generated')
    lines = enumerate(file.read_text(encoding='utf-8').splitlines(), 1)
    assert not [f'line {i}: {len(o)}' for i,o in lines if len(o)>120 and not o.startswith('__all__')] # nbdev wraps that one

@pytest.mark.parametrize('file', NOTEBOOKS, ids=lambda o: o.stem)
def test_kernel_is_named(file):
    "Without it Jupyter asks for a kernel and shows grey code"
    kernel = json.loads(file.read_text(encoding='utf-8'))['metadata'].get('kernelspec', {})
    assert kernel.get('name')=='python3' and kernel.get('language')=='python'

def test_notebooks_are_light():
    assert sum(o.stat().st_size for o in NOTEBOOKS) < 6*2**20

@pytest.mark.parametrize('file', NOTEBOOKS, ids=lambda o: o.stem)
def test_outputs_name_no_machine(file):
    found = []
    for o in (out for c in cells(file) for out in c.get('outputs', [])):
        data = {k: v for k, v in o.get('data', {}).items() if not k.startswith('image/')}
        text = ' '.join(''.join(v) if isinstance(v, list) else str(v) for v in [o.get('text', ''), o.get('traceback', ''), *data.values()])
        found += [text[max(0, m.start()-30):m.end()+30] for m in MACHINE.finditer(text)]
    assert not found

@pytest.mark.parametrize('file', NOTEBOOKS, ids=lambda o: o.stem)
def test_no_trace_of_other_tools(file):
    nb = json.loads(file.read_text(encoding='utf-8'))
    assert set(nb['metadata']) <= {'kernelspec', 'language_info'}

@pytest.mark.parametrize('file', sorted((ROOT/'ssd_fastai').glob('*.py')), ids=lambda o: o.stem)
def test_comments_of_parameters_are_whole(file):
    "`--help` and `?name` show the comment behind a parameter, or all lines above it, never what goes on below"
    lines = file.read_text(encoding='utf-8').splitlines()
    deep  = lambda o: len(o)-len(o.lstrip())
    for f in ast.walk(ast.parse('\n'.join(lines))):
        if not isinstance(f, ast.FunctionDef): continue
        head = lines[f.lineno-1:f.body[0].lineno-1]
        cut  = [a for a,b in zip(head, head[1:]) if b.lstrip()[:1]=='#' and a.lstrip()[:1]!='#' and '# ' in a and deep(b)>deep(a)]
        assert not cut, f'{f.name}: write the comment above the parameter: {cut[0].strip()}'
