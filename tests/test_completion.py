"""What Jupyter shows when one presses Tab, and what `?` and `doc` print: through IPython's own completer, as ipykernel has it (jedi on)."""
import inspect, os, time
from contextlib import redirect_stdout
from io import StringIO
import pytest
os.environ.setdefault('MPLBACKEND', 'Agg')
pytest.importorskip('IPython'), pytest.importorskip('jedi')
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from ssd_fastai.all import DetectionDataLoaders, SSDLearner, base_doc

@pytest.fixture(scope='module')
def shell(tmp_path_factory):
    "A shell after the first lines of a notebook, with one learner of this package and one of fastai's"
    sh = InteractiveShell()
    sh.user_ns['path'] = tmp_path_factory.mktemp('completion')/'shapes'
    with redirect_stdout(StringIO()):
        res = sh.run_cell('''
from ssd_fastai.all import *
dls   = DetectionDataLoaders.from_voc(synth_voc(path, n=16, seed=1), size=64, bs=4, num_workers=0, verify=False)
learn = ssd_learner(dls, 'test_resnet', pretrained=False)
plain = Learner(dls, learn.model, learn.loss_func)''', silent=True)
    res.raise_error()
    assert sh.Completer.use_jedi
    return sh

def complete(shell, line):
    "The texts offered at the end of `line`, and the seconds of processor time that takes"
    start = time.process_time()
    with provisionalcompleter(): texts = [o.text for o in shell.Completer.completions(line, len(line))]
    return texts,time.process_time()-start

VERBS = 'detect detector evaluate fine_tune fit_one_cycle lr_find predict show_results tta plot_losses'.split()

@pytest.mark.parametrize('line', ['learn.', 'learn.sh', 'dls.', 'learn.detect("a", sc', 'ssd_learner(dls, enc'])
def test_tab_is_quick(shell, line):
    "The first time files are parsed; then a tenth of a second, as for fastai's learner. Processor time: others may work here"
    complete(shell, 'plain.'), complete(shell, line)
    assert min(complete(shell, line)[1] for _ in range(2)) < 0.5

def test_every_verb_is_offered(shell):
    texts,_ = complete(shell, 'learn.')
    assert set(VERBS) <= set(texts) and {o for o in complete(shell, 'plain.')[0]} <= set(texts)|{'params'}

@pytest.mark.parametrize('line,option', [
    ('learn.detect("a", sc','score='), ('learn.detect("a", ti','tile='), ('learn.predict("a", sc','score='), ('learn.evaluate(io','iou='), ('learn.tta(max','max_per_image='),
    ('learn.show_results(max','max_n='), ('learn.show_results(sc','score='), ('learn.fine_tune(3, ba','base_lr='), ('learn.fine_tune(3, fr','freeze_epochs='),
    ('learn.fine_tune(3, pct','pct_start='), ('learn.fit_one_cycle(3, lr','lr_max='), ('learn.fit(3, st','start_epoch='), ('learn.lr_find(nu','num_it='),
    ('learn.fit_unfreezing(lr','lr_mult='), ('learn.plot_losses(be','beta='),
    ('ssd_learner(dls, resnet18, he','head='), ('ssd_learner(dls, resnet18, thr','thresholds='), ('ssd_learner(dls, resnet18, met','metrics='),
    ('DetectionDataLoaders.from_voc("x", si','size='), ('DetectionDataLoaders.from_coco("x", va','valid_json='), ('DetectionDataLoaders.from_yolo("x", aug','augment='),
    ('DetectionDataLoaders.from_df(df, va','valid_pct='), ('DetectionDataLoaders.from_folder("x", va','valid_pct='), ('DetectionDataLoaders.from_records(a, b, met','method='),
    ('check_dataset(pa','path=')])
def test_options_are_offered(shell, line, option):
    if '.from_folder' in line and not hasattr(DetectionDataLoaders, 'from_folder'): pytest.skip('no from_folder')
    assert option in complete(shell, line)[0]

@pytest.mark.parametrize('cls', [SSDLearner, DetectionDataLoaders])
def test_every_added_method_is_named_in_its_class(cls):
    "jedi sees no method that `@patch` adds, so the class names it: one that is missing offers no arguments"
    named = set(cls.__annotations__)
    added = {n for n in vars(cls) if not n.startswith('_') and callable(getattr(cls, n)) and n!='to_distributed'}   # that is in ssd_fastai.distributed
    missing = {n for n in added-named if not any(_in_body(o, n) for o in cls.__mro__)}
    assert not missing, f'name them in the class: {missing}'

def _in_body(cls, name):
    "Whether the class statement itself defines it"
    try: return f'    def {name}(' in inspect.getsource(cls)
    except (OSError, TypeError): return False

@pytest.mark.parametrize('name,words', {
    'ssd_learner': 'arch thresholds head ImageNet', 'DetectionDataLoaders.from_voc': 'size method augment bs squish', 'learn.detect': 'score iou tile pixels',
    'learn.evaluate': 'score max_per_image', 'learn.fine_tune': 'base_lr freeze_epochs pct_start'}.items())
def test_question_mark_and_doc(shell, name, words):
    "`?name` and `doc(name)` print every option, those of the delegated functions as well"
    obj = eval(name, shell.user_ns)
    text = shell.inspector._get_info(obj, oname=name)['text/plain']
    assert all(o in text for o in words.split())
    with redirect_stdout(StringIO()) as o: base_doc(obj)   # what `doc` prints where nbdev is missing
    assert all(w in o.getvalue() for w in words.split())
    doc = pytest.importorskip('nbdev.showdoc').doc
    assert all(w in str(doc(obj)._repr_markdown_()) for w in words.split())
