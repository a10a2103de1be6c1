"""Make README.md from nbs/index.ipynb: text as it stands, code fenced, text outputs after it, hidden cells left out.

A cell with `#| output: asis` gives its output alone, as markdown."""
from pathlib import Path
from fastcore.nbio import read_nb

ROOT = Path(__file__).resolve().parent.parent

def output_text(o):
    "The plain text of one cell output, or nothing"
    data = o.get('text') or o.get('data', {}).get('text/plain', '')
    return ''.join(data).rstrip()

def cell_md(cell):
    "One notebook cell as markdown"
    src = ''.join(cell.source).strip()
    if '#| hide' in src or not src: return ''
    if cell.cell_type == 'markdown': return src.replace('](../', '](')
    outs = [t for o in cell.get('outputs', []) if (t := output_text(o))]
    if '#| output: asis' in src: return '\n\n'.join(outs).replace('](../', '](')
    code = '\n'.join(l for l in src.splitlines() if not l.startswith('#|'))
    return '\n\n'.join([f'```python\n{code}\n```'] + [f'```text\n{o}\n```' for o in outs])

if __name__ == '__main__':
    nb    = read_nb(ROOT/'nbs/index.ipynb')
    parts = ['<!-- made from nbs/index.ipynb by tools/readme.py: edit the notebook -->'] + [cell_md(c) for c in nb.cells]
    (ROOT/'README.md').write_text('\n\n'.join(p for p in parts if p) + '\n', encoding='utf-8')
