"House style that can be counted: short functions, short cells, no paths of somebody's machine."
import ast, json, re
from pathlib import Path
from statistics import median
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent/'nbs').glob('*.ipynb'))
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

@pytest.mark.parametrize('file', NOTEBOOKS, ids=lambda o: o.stem)
def test_cells_are_short(file):
    n = [k for o in cells(file) if o['cell_type']=='code' and (k := len(code(o['source'])))]
    if len(n) < 5: pytest.skip('too few code cells to speak of a median')
    assert median(n) <= 5, sorted(n)

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
