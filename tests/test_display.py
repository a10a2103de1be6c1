"A real kernel runs small notebooks: how often does each picture appear, and with what text?"
import os, warnings

import matplotlib, pytest
matplotlib.use('agg')
import matplotlib.pyplot as plt
import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from ssd_fastai.draw import new_axes, show_grid, show_once, show_pairs
from ssd_fastai.records import Detections, GroundTruth

IMAGES = 'image/png','image/jpeg','image/svg+xml'
MAGIC  = dict(plain='', inline='%matplotlib inline', jpeg="""
import matplotlib_inline.backend_inline as b
b.set_matplotlib_formats('jpeg', pil_kwargs=dict(quality=60))""", retina="%config InlineBackend.figure_format='retina'")
SETUP  = '''
import matplotlib.pyplot as plt, numpy as np
from PIL import Image
from ssd_fastai.draw import *
from ssd_fastai.records import *
vocab = ['#na#','cat','dog']
img = Image.new('RGB', (64,48), (90,120,60))
d = Detections([[4,4,30,30]], [1], [0.9], vocab, (48,64), image=img)
t = GroundTruth([[4,4,30,30]], ['cat'], size=(48,64))
'''

def run_cells(*cells):
    "The outputs of each cell, run in one kernel"
    nb = new_notebook(cells=[new_code_cell(o) for o in (SETUP, *cells)])
    env = {k:v for k,v in os.environ.items() if k!='MPLBACKEND'}   # a reader's kernel draws inline
    NotebookClient(nb, timeout=300, kernel_name='python3').execute(env=env)
    return [c.outputs for c in nb.cells[1:]]

def pictures(outs):
    "How many pictures these outputs show"
    return sum(any(k in o.get('data', {}) for k in IMAGES) for o in outs)

def texts(outs):
    "What these outputs show as text"
    return [''.join(o.get('text') or o['data'].get('text/plain', '')) for o in outs
            if not any(k in o.get('data', {}) for k in IMAGES)]

CELLS = { # cell: number of pictures
    'd.show()': 1, 'd.show();': 1, 'ax = d.show()': 1, 'd.show(); x = 1': 1, 't.show(img)': 1, 'd': 1,
    'fig = d.show().figure\nfig': 1, 'fig = show_grid([d, d])': 1, 'show_grid([d, d])': 1, 'show_pairs([(img,t,d)])': 1,
    'd.show()\nt.show(img)': 2, 'd.show()\nshow_grid([d])\nt.show(img);': 3, 'draw_boxes(img, [[1,1,9,9]])': 1,
    'fig,axs = plt.subplots(1, 2)\nd.show(ax=axs[0])\nt.show(img, ax=axs[1])': 1,
    'fig,axs = plt.subplots(1, 2)\nfor ax in axs: d.show(ax=ax)': 1,
    'fig,axs = plt.subplots(1, 2)\nd.show(ax=axs[0])\nfig': 1,
    'from IPython.display import display\ndisplay(d.show())\nx = 1': 1,
    'for _ in range(30): d.show()': 30,
    'd.show()\nplt.show()': 1,
    'sub = plt.figure().subfigures(1, 2)\nd.show(ax=sub[0].subplots())': 1,
}

AGAIN = ['fig = show_grid([d])', 'fig', 'fig', 'ax = d.show()', 'ax', 'ax.figure', 'plt.get_fignums()']
OTHER = ['plt.plot([1,2]);', 'plt.plot([1,2])\nd.show()', 'd.show()\nplt.plot([1,2]);', 'fig,ax = plt.subplots()\nax']
ORDER = ["d.show(title='a')\nt.show(img, title='b')", "d.show(title='a')", "t.show(img, title='b')"]
SAVED = ["""d.show(title='a title')
from io import BytesIO
raw = BytesIO()
plt.savefig(raw)
bool((np.asarray(Image.open(raw).convert('L'))<150).mean()>0.3)"""]

@pytest.fixture(scope='module')
def outputs():
    "Outputs by (magic, group) of cells; one kernel runs them all"
    groups = {(m,g):cells for m in MAGIC for g,cells in dict(once=list(CELLS), again=AGAIN).items()}
    groups.update({('plain',g):cells for g,cells in dict(other=OTHER, order=ORDER, saved=SAVED).items()})
    flat = [(k,c) for k,cells in groups.items() for c in (MAGIC[k[0]] or 'pass', *cells)]
    outs = iter(run_cells(*(c for _,c in flat)))
    return {k:[next(outs) for _ in range(1+len(cells))][1:] for k,cells in groups.items()}

@pytest.mark.parametrize('magic', list(MAGIC))
def test_each_figure_once(outputs, magic):
    for (cell,n),outs in zip(CELLS.items(), outputs[magic,'once']):
        assert pictures(outs)==n and not any(texts(outs)), (magic, cell, outs)

@pytest.mark.parametrize('magic', list(MAGIC))
def test_a_figure_that_was_shown_can_be_shown_again(outputs, magic):
    *outs,numbers = outputs[magic,'again']
    assert [pictures(o) for o in outs]==[1]*6 and not any(sum(map(texts, outs), []))
    assert texts(numbers)==['[]'] # none is left open

def test_the_order_of_a_cell(outputs):
    both,first,second = ([o.data['image/png'] for o in outs] for outs in outputs['plain','order'])
    assert both==first+second

def test_other_figures_are_left_as_they_are(outputs):
    outs = outputs['plain','other']
    assert [pictures(o) for o in outs]==[1,2,1,1]
    assert texts(outs[-1])==['<Axes: >']

def test_savefig_right_after_has_the_picture(outputs):
    outs, = outputs['plain','saved']
    assert pictures(outs)==1 and texts(outs)==['True']

# ---------------------------------------------------------------- without a notebook

def found(): return Detections([[4,4,30,30]], [1], [0.9], ['#na#','cat'], (48,64))

def test_scripts_keep_pyplots_ways(recwarn):
    plt.close('all')
    axs = [found().show() for _ in range(20)]
    assert not [o for o in recwarn if issubclass(o.category, RuntimeWarning)]
    assert plt.get_fignums()==list(range(1, 21)) and plt.gcf() is axs[-1].figure
    with pytest.warns(RuntimeWarning, match='20 figures'): found().show()   # matplotlib's own advice to close them
    plt.close('all')

def test_what_is_returned_can_be_saved(tmp_path):
    t = GroundTruth([[4,4,30,30]], ['cat'], size=(48,64))
    for i,o in enumerate((found().show(), show_grid([found()]), show_pairs([(None,t,found())]))):
        o.figure.savefig(tmp_path/f'{i}.png')
        assert (tmp_path/f'{i}.png').stat().st_size>500 and o.axes
    plt.close('all')

def test_marked_figures_are_pickled_and_copied():
    import copy, pickle
    fig = show_grid([found()])
    other = pickle.loads(pickle.dumps(fig))
    assert other is not fig and len(other.axes)==1 and other._ipython_display_.args==(other,)
    assert len(copy.deepcopy(fig).axes)==1
    plt.close('all')

# ---------------------------------------------------------------- what a picture or a table says

def crowd(threshold=None, n=60):
    boxes = [[i, i, i+9, i+9] for i in range(n)]
    return Detections(boxes, [1+i%2 for i in range(n)], [1-i/n for i in range(n)], ['#na#','mean','background'], (80,80),
                      threshold=threshold)

def test_a_picture_says_its_threshold_and_is_never_a_thicket():
    for d,title,n in ((crowd(0.1), 'score above 0.1', 60), (crowd(), '45 of 60, score above 0.25', 45),
                      (crowd()[:12], '', 12), (crowd(0.3)[:0], '', 0)):
        ax = d.show()
        assert ax.get_title()==title and len(ax.patches)==2*n
    t = GroundTruth([[1,1,9,9]], ['mean'], size=(80,80))
    assert [o.get_title() for o in show_pairs([(None,t,crowd(0.1))]).axes]==['truth','detections, score above 0.1']
    assert [o.get_title() for o in show_grid([crowd(0.1), t]).axes]==['score above 0.1','']
    plt.close('all')

def test_titles_are_saved_whole():
    fig = show_grid([crowd(0.1)]*4, ncols=2, title='a line above all')
    fig.canvas.draw()
    tops = [o.get_window_extent() for o in (fig._suptitle, *(a.title for a in fig.axes))]
    assert all(0<=o.y0 and o.y1<=fig.bbox.height and 0<=o.x0 and o.x1<=fig.bbox.width for o in tops)
    assert tops[0].y0>=max(o.y1 for o in tops[1:])-1
    ax = crowd(0.1).show(title='a very long title '*4)
    ax.figure.canvas.draw()
    box = ax.title.get_window_extent()
    assert box.x0>=0 and box.x1<=ax.figure.bbox.width and box.y1<=ax.figure.bbox.height
    plt.close('all')

def test_classes_called_mean_and_background_stay_apart():
    from ssd_fastai.metrics import evaluate_detections
    import ssd_fastai.analysis
    truth = GroundTruth([[0,0,9,9], [1,1,10,10]], ['mean','background'], size=(80,80))
    ev = evaluate_detections([crowd(0.1)], [truth], thresholds=None)
    assert list(ev.per_class.index)==['mean','background']
    assert list(ev.confusion(0.1).index)==['mean','background','(background)']
    for df in (ev.by_size(), ev.compare(ev)): assert list(df.index)==['mean','background','(mean)']
    assert '(mean)' in repr(ev) and '(mean)' in ev._repr_html_()
    assert ev.confusion(0.1).loc['(background)','(background)']==0

def test_advice_is_whole():
    from ssd_fastai.metrics import evaluate_detections
    import ssd_fastai.analysis
    df = evaluate_detections([crowd(0.1)], [GroundTruth([[0,0,9,9]], ['mean'], size=(80,80))]).errors()
    for text in (str(df), df._repr_html_()): assert all(o in text for o in df.advice) and '...' not in text
