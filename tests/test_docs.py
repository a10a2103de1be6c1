"The documents: every public name is explained, every link leads somewhere, every notebook has its place."
import ast, json, re
from pathlib import Path
import pytest, yaml

ROOT      = Path(__file__).resolve().parent.parent
LIB       = ROOT/'ssd_fastai'
NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb'))
PAGES     = [o for o in sorted(ROOT.glob('*.md'))+sorted((ROOT/'benchmarks').glob('*.md'))]
MODULES   = [o for o in sorted(LIB.glob('*.py')) if o.stem not in ('__init__', '_modidx', 'all')]

# --- public names

def is_patch(fn): return any('patch' in ast.unparse(o) for o in fn.decorator_list)

def public(tree):
    "Functions, classes and patched methods that a user can call; `forward` and a callback's events are told by their class"
    names = {e.value for o in tree.body if isinstance(o, ast.Assign) and ast.unparse(o.targets[0])=='__all__' for e in o.value.elts}
    for o in tree.body:
        if not isinstance(o, (ast.FunctionDef, ast.ClassDef)) or o.name.startswith('_'): continue
        if not re.match('forward$|before_|after_', o.name) and (o.name in names or isinstance(o, ast.FunctionDef) and is_patch(o)): yield o

def parameters(fn):
    "Names of the parameters that need a comment: not `self`, not `cls`"
    a = fn.args
    every = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs]
    return [o for i,o in enumerate(every) if not (i==0 and o.arg in ('self','cls'))]

def uncommented(fn, lines):
    "Parameters without a comment in the signature and without a type that says it all"
    whole = '\n'.join(lines[fn.lineno-1:fn.body[0].lineno-1])
    if len(parameters(fn))<2 and '#' not in whole: return []
    said = lambda o: '#' in lines[o.end_lineno-1][o.end_col_offset:] or lines[o.lineno-2].lstrip()[:1]=='#'   # behind it, or above
    return [o.arg for o in parameters(fn) if not o.annotation and not said(o)]

@pytest.mark.parametrize('file', MODULES, ids=lambda o: o.stem)
def test_public_names_are_documented(file):
    src  = file.read_text(encoding='utf-8')
    tree = ast.parse(src)
    bare = [o.name for o in public(tree) if not ast.get_docstring(o)]
    assert not bare, f'no docstring: {bare}'
    assert ast.get_docstring(tree), 'the module says nothing of itself'

@pytest.mark.parametrize('file', MODULES, ids=lambda o: o.stem)
def test_parameters_are_documented(file):
    "Each parameter of a public function of several has its comment, which `doc` and `--help` show"
    src  = file.read_text(encoding='utf-8')
    fns  = [o for o in public(ast.parse(src)) if isinstance(o, ast.FunctionDef)]
    bare = {o.name: u for o in fns if (u := uncommented(o, src.splitlines()))}
    assert not bare

# --- links

def slug(heading):
    "The anchor that GitHub gives a heading"
    text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading.strip().lower())
    return re.sub(r'\s', '-', re.sub(r'[^\w\s-]', '', text))

def headings(text):
    return {slug(m[1]) for m in re.finditer(r'^#{1,6} +(.+?) *#*$', re.sub(r'```.*?```', '', text, flags=re.S), re.M)}

def text_of(file):
    if file.suffix!='.ipynb': return file.read_text(encoding='utf-8')
    cells = json.loads(file.read_text(encoding='utf-8'))['cells']
    return '\n\n'.join(''.join(o['source']) for o in cells if o['cell_type']=='markdown')

def links(text):
    "Targets of the links and pictures in markdown, outside code"
    text = re.sub(r'```.*?```|`[^`\n]*`', '', text, flags=re.S)
    return re.findall(r'\]\(([^)\s]+)\)', text) + re.findall(r'(?:href|src)="([^"]+)"', text)

def dead(file, target):
    "Why a link leads nowhere, or None"
    if re.match(r'[a-z]+:', target):
        return None if re.match(r'https://[\w.-]+\.[a-z]{2,}(/\S*)?$|mailto:\S+@\S+$', target) else f'{target}: no https address'
    path,_,anchor = target.partition('#')
    to = (file.parent/path).resolve() if path else file
    if not to.exists(): return f'{target}: no such file'
    if anchor and anchor not in headings(text_of(to)): return f'{target}: no such heading'

@pytest.mark.parametrize('file', PAGES+NOTEBOOKS, ids=lambda o: o.name)
def test_links_lead_somewhere(file):
    assert not [why for o in links(text_of(file)) if (why := dead(file, o))]

def test_a_dead_link_is_found():
    assert links('[a](b.md) ![c](d.png) `[e](f)` <a href="g.md">') == ['b.md','d.png','g.md']
    assert dead(ROOT/'README.md', 'nowhere.md') and dead(ROOT/'README.md', 'CONTRIBUTING.md#nowhere')
    assert not dead(ROOT/'README.md', 'CONTRIBUTING.md#the-loop') and dead(ROOT/'README.md', 'http://localhost:1/x')

@pytest.mark.parametrize('file', PAGES+NOTEBOOKS, ids=lambda o: o.name)
def test_notebooks_that_are_named_exist(file):
    "`52_learner` in a text is a notebook"
    known = {o.stem for o in NOTEBOOKS}
    if file.name=='CHANGELOG.md': pytest.skip('tells of notebooks that had other names')
    assert not {o for o in re.findall(r'`(\d\d_[a-z_]+)`', text_of(file))}-known

# --- the site and the citation

def test_the_sidebar_lists_every_notebook():
    site  = yaml.safe_load((ROOT/'nbs/sidebar.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents']
    files = [f for o in site for f in (o['contents'] if isinstance(o, dict) else [o])]
    assert sorted(files) == [o.name for o in NOTEBOOKS]
    conf = yaml.safe_load((ROOT/'nbs/_quarto.yml').read_text(encoding='utf-8'))
    assert conf['metadata-files'] == ['sidebar.yml'] and conf['project']['type']=='website'
    assert all((ROOT/'nbs'/o['href']).exists() for o in conf['website']['navbar']['left'])

def test_the_citation_agrees_with_the_settings():
    from configparser import ConfigParser
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    cite = yaml.safe_load((ROOT/'CITATION.cff').read_text(encoding='utf-8'))
    assert (cite['version'], cite['license'], cite['repository-code']) == tuple(cfg['DEFAULT'][k] for k in ('version','license','git_url'))
    assert {'cff-version','message','title','authors'} <= cite.keys() and all(o.get('url') for o in cite['references'])
