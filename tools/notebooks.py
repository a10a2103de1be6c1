"""How a notebook is built, counted: how soon each definition is used, how many follow one another, how long cells are.

    python tools/notebooks.py            # the table of CONTRIBUTING.md
    python tools/notebooks.py 12_match   # one notebook, and which definitions are used too late
    python tools/notebooks.py --check    # exit code 1 where a rule is broken

A definition cell is an exported cell that defines a function, a class, a method or a constant. It counts as used where one of the
next two code cells exports nothing and mentions one of its names. Walks (80 and up) define nothing."""
import ast, json, re, sys
from pathlib import Path
from statistics import median

NBS   = Path(__file__).resolve().parent.parent/'nbs'
SHARE = 0.8 # of the definition cells must be used within two cells
RUN   = 5   # definition cells in a row at most
LINES = 5   # median lines of a code cell at most

def source(cell): return ''.join(cell['source'])

def is_exported(cell): return re.match(r'#\s*\|\s*exporti?\b', source(cell)) is not None

def code_cells(file):
    "The code cells of a notebook, but for the one that names its module"
    cells = json.loads(file.read_text(encoding='utf-8'))['cells']
    return [o for o in cells if o['cell_type']=='code' and not re.match(r'#\s*\|\s*default_exp', source(o))]

def defined(cell):
    "Names that an exported cell defines; nothing for a cell of imports"
    names = []
    for o in ast.parse(source(cell)).body:
        if isinstance(o, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): names.append(o.name)
        if isinstance(o, ast.Assign): names += [n.id for t in o.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return [o for o in names if o!='_all_']

def uses(cell, names):
    "Whether a cell mentions one of `names`; `__getitem__` and its like are used without being named"
    return any(o.startswith('__') or re.search(rf'\b{re.escape(o)}\b', source(cell)) for o in names)

def definitions(cells):
    "(names, used within two cells?) of each definition cell"
    for i,o in enumerate(cells):
        names = defined(o) if is_exported(o) else []
        if names: yield names, any(not is_exported(p) and uses(p, names) for p in cells[i+1:i+3])

def longest_run(cells):
    "How many definition cells follow one another without a cell that shows something"
    run = longest = 0
    for o in cells:
        run = run + bool(defined(o)) if is_exported(o) else 0
        longest = max(longest, run)
    return longest

def lines(cell): return len([o for o in source(cell).splitlines() if o.strip() and not o.strip().startswith('#')])

def counted(file):
    "(definition cells, those used within two cells, longest run, median lines of a code cell) of a notebook"
    cells = code_cells(file)
    used  = [ok for _,ok in definitions(cells)]
    return len(used), sum(used), longest_run(cells), median([n for n in map(lines, cells) if n] or [0])

def broken(n, used, run, med):
    "Which rules a notebook breaks"
    return [say for bad,say in ((n and used<SHARE*n, f'{used} of {n} definition cells are used within two cells'),
                                (run>RUN, f'{run} definition cells in a row'), (med>LINES, f'median cell of {med:g} lines')) if bad]

def table(files):
    "The rows of CONTRIBUTING.md"
    yield '| notebook | definition cells | used within two cells | longest run | median lines of a cell |\n|---|---|---|---|---|'
    for f in files:
        n,used,run,med = counted(f)
        yield f'| {f.stem} | {n} | {f"{used/n:.0%}" if n else "–"} | {run} | {med:g} |'

if __name__=='__main__':
    names = [o for o in sys.argv[1:] if not o.startswith('-')]
    files = [f for f in sorted(NBS.glob('[0-9]*.ipynb')) if not names or f.stem in names]
    print('\n'.join(table(files)))
    if names:
        for f in files: print(*(f'{", ".join(o)}: used too late' for o,ok in definitions(code_cells(f)) if not ok), sep='\n')
    bad = [f'{f.stem}: {o}' for f in files for o in broken(*counted(f))]
    if bad and '--check' in sys.argv: sys.exit('\n'.join(bad))
