"""The rooms of the house: the drawing of imports in CONTRIBUTING.md, and the sidebar of the docs site.

An arrow says "imports". Where a module reaches another through a third, the direct arrow is left out, so that the drawing stays legible."""
import ast, json, re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIB  = ROOT/'ssd_fastai'
CHAPTERS = {0:'0 Images and boxes', 1:'1 SSD', 2:'2 How good', 3:'3 Data', 4:'4 Model', 5:'5 Training', 6:'6 Use', 8:'8 Walks'}
UPWARD   = {('files','onnx')} # `load_detector` opens a file by its ending: the one import that points up

def rooms():
    "{module: number of its notebook}, in the order of the notebooks"
    return {o.stem[3:]: int(o.stem[:2]) for o in sorted((ROOT/'nbs').glob('[0-6]*.ipynb'))}

def imported(module):
    "Everything a module imports, at the top or inside a function, in dotted form"
    for o in ast.walk(ast.parse((LIB/f'{module}.py').read_text(encoding='utf-8'))):
        if isinstance(o, ast.Import): yield from (a.name for a in o.names)
        elif isinstance(o, ast.ImportFrom):
            base = '.'.join(filter(None, ['ssd_fastai' if o.level else None, o.module]))
            yield from ([f'{base}.{a.name}' for a in o.names] if base=='ssd_fastai' else [base])

def ours(module):
    "The modules of this package that a module imports"
    return {o.split('.')[1] for o in imported(module) if o.startswith('ssd_fastai.')} & rooms().keys()

def reached(edges, start):
    "Every module that `start` imports, directly or through others"
    seen, todo = set(), [start]
    while todo:
        new = edges[todo.pop()]-seen
        seen |= new
        todo += new
    return seen

def arrows():
    "(module, imported module) without those that a longer way shows"
    edges = {o: ours(o)-{b for a,b in UPWARD if a==o} for o in rooms()}
    for o,to in edges.items():
        through = set().union(*(reached(edges, p) for p in to))
        yield from ((o, p) for p in sorted(to-through, key=list(edges).index))

def drawing():
    "Mermaid's text: a box per chapter, an arrow per import"
    lines = ['```mermaid', 'flowchart BT']
    for n,title in CHAPTERS.items():
        names = [o for o,k in rooms().items() if k//10==n]
        if not names: continue
        lines += [f'  subgraph c{n}["{title}"]', *(f'    {o}' for o in names), '  end']
    return '\n'.join([*lines, *(f'  {a} --> {b}' for a,b in arrows()), '```'])

def sidebar():
    "The docs site's title and sidebar as YAML: a section per chapter"
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    facts = [(k, json.dumps(cfg['DEFAULT'][o])) for k,o in (('title','lib_name'), ('description','description'), ('repo-url','git_url'))]
    lines = ['# made by tools/rooms.py', 'website:', *(f'  {k}: {v}' for k,v in facts),
             '  sidebar:', '    contents:', '      - index.ipynb']
    for n,title in CHAPTERS.items():
        files = sorted(o.name for o in (ROOT/'nbs').glob(f'{n}?_*.ipynb'))
        lines += [f'      - section: "{title}"', '        contents:', *(f'          - {o}' for o in files)]
    return '\n'.join(lines)+'\n'

def put(text, name, new):
    "`text` with `new` between the two comments that carry `name`"
    res,n = re.subn(rf'(<!-- {name} -->\n).*?(<!-- /{name} -->)', lambda m: f'{m[1]}{new}\n{m[2]}', text, flags=re.S)
    if n!=1: raise SystemExit(f'CONTRIBUTING.md needs one pair of comments {name}, and has {n}')
    return res

if __name__=='__main__':
    from notebooks import NBS, table
    file = ROOT/'CONTRIBUTING.md'
    text = put(file.read_text(encoding='utf-8'), 'rooms', drawing())
    file.write_text(put(text, 'notebooks', '\n'.join(table(sorted(NBS.glob('[0-9]*.ipynb'))))), encoding='utf-8')
    (ROOT/'nbs/sidebar.yml').write_text(sidebar(), encoding='utf-8')
