"""Every public method of fastai's `Learner` and every callback of `fastai.vision.all`: it works with a detector, or is
refused with a reason. One that is not in the tables below makes a test fail, so that a new one is noticed."""
import inspect, os, subprocess, sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
import pytest, torch
os.environ.setdefault('MPLBACKEND', 'Agg')
import fastai.vision.all as fva
from fastai.vision.all import *
from ssd_fastai.all import *
from ssd_fastai.runs import train_run

for o in [o for o in globals() if o.startswith('test')]: del globals()[o]   # fastcore's own, which pytest would collect

torch.backends.cudnn.allow_tf32 = False   # seven digits on a GPU as well
ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture(scope='module')
def data(tmp_path_factory): return synth_voc(tmp_path_factory.mktemp('learner')/'shapes', n=16, seed=1)

@pytest.fixture(scope='module')
def dls(data): return DetectionDataLoaders.from_voc(data, size=64, bs=4, num_workers=0, verify=False)

@pytest.fixture(scope='module')
def shared(dls, tmp_path_factory):
    set_seed(0, reproducible=True)
    return ssd_learner(dls, resnet18, pretrained=False, path=tmp_path_factory.mktemp('out'))

@pytest.fixture
def learn(shared):
    "The same learner for every test, quiet; callbacks that a test leaves behind are removed"
    with shared.no_logging(), shared.no_bar():
        own = list(shared.cbs)
        yield shared
        shared.remove_cbs([o for o in shared.cbs if o not in own])
        assert all(o.isfinite().all() for o in weights(shared))
    shared.unfreeze()

def files(learn): return [o.file for o in learn.dls.valid_ds.items]
def weights(learn): return [o.cpu().clone() for o in learn.model.state_dict().values()]
def moved(learn, f):
    "Does `f` change the weights?"
    was = weights(learn)
    f()
    return any((a!=b).any() for a,b in zip(was, weights(learn)))
def refuses(f, *words):
    with pytest.raises(ValueError) as e: f()
    assert all(o in str(e.value) for o in words) and '\n' not in str(e.value)
def n_frozen(learn): return sum(not p.requires_grad for p in learn.model.parameters())

# --- methods

def m_fit(name, *args):
    def f(learn):
        assert moved(learn, lambda: getattr(learn, name)(*args))
        assert np.isfinite(learn.recorder.values[-1][0])
    return f
def m_callbacks(learn):
    "add, remove, and both for a while"
    n,cb = len(learn.cbs),GradientClip()
    assert learn.add_cb(cb) is learn and learn.gradient_clip is cb
    assert cb in learn.ordered_cbs('before_step')
    with learn.removed_cbs(cb): assert not hasattr(learn, 'gradient_clip')
    learn.remove_cb(GradientClip)
    with learn.added_cbs([GradientClip()]): assert len(learn.cbs)==n+1
    learn.add_cbs([GradientClip(), TerminateOnNaNCallback]).remove_cbs([GradientClip, TerminateOnNaNCallback])
    assert len(learn.cbs)==n
def m_freezing(learn):
    learn.freeze(); a = n_frozen(learn)
    learn.freeze_to(1); b = n_frozen(learn)
    learn.unfreeze()
    assert a>b>n_frozen(learn)==0
def m_fine_tune(learn):
    "Everything trains in one cycle at 2e-3; `freeze_epochs` come before, with the body as it was"
    learn.freeze()
    rates = []
    note  = Callback(before_step=lambda _: rates.append([h['lr'] for h in learn.opt.hypers]))
    learn.fine_tune(1, cbs=note)
    assert n_frozen(learn)==0 and len(learn.recorder.values)==1 and 1e-3<np.max(rates)<=2e-3
    assert all(len(set(o))==1 for o in rates)
    body = [o.clone() for o in learn.model.body.state_dict().values()]
    seen = []
    def same(_): seen.append(all((a==b).all() for a,b in zip(body, learn.model.body.state_dict().values())))
    learn.fine_tune(1, freeze_epochs=1, cbs=Callback(after_train=same))
    assert seen==[True, False] and n_frozen(learn)==0
def m_save(learn):
    was,file = weights(learn),learn.save('here')
    assert file.is_file()
    with torch.no_grad(): next(learn.model.parameters()).zero_()
    assert learn.load('here') is learn
    assert all((a==b).all() for a,b in zip(was, weights(learn)))
def m_export(learn):
    learn.export('e.pkl')
    a,b = (o.detect(files(learn)[0], score=0.01) for o in (learn, load_learner(learn.path/'e.pkl')))
    assert len(a) and torch.allclose(a.boxes, b.boxes, atol=1e-3)
def m_predict(learn):
    img,d,names,scores = learn.predict(learn.dls.valid_ds.items[0], with_input=True, score=0.01)
    assert img.size==d.size[::-1] and names==d.names and (scores==d.scores).all()
    refuses(lambda: learn.predict(files(learn)), 'one image', 'detect')
def m_get_preds(learn):
    x,(logits,offsets),targs,dets,losses = learn.get_preds(with_input=True, with_decoded=True, with_loss=True)
    n = len(files(learn))
    assert len(x)==len(logits)==len(offsets)==len(targs[0])==len(dets)==len(losses)==n
    assert all(torch.allclose(a.scores, b.scores, atol=1e-3) for a,b in zip(dets, learn.detect(files(learn))))
    assert learn.get_preds(dl=learn.dls.test_dl(files(learn)))[1] is None
    refuses(lambda: learn.get_preds(0, with_decoded=True), 'augmented')
def m_tta(learn):
    dl = learn.dls.test_dl(files(learn))
    both = learn.tta(score=0.01),learn.tta(dl=dl, score=0.01)
    assert len(both[0])==len(files(learn)) and all(torch.allclose(a.scores, b.scores, atol=1e-3) for a,b in zip(*both))
def m_validate(learn):
    a = learn.validate()
    b = learn.validate(dl=learn.dls.test_dl(learn.dls.valid_ds.items, with_labels=True))
    assert len(a)==4 and np.allclose(a, b) and np.isclose(a[0], a[1]+a[2], atol=1e-4)
    assert np.isclose(a[3], learn.evaluate(progress=False).voc12, atol=1e-3)
def m_show_results(learn):
    for dl,n in ((None,4), (learn.dls.test_dl(files(learn)),2)): assert len(learn.show_results(dl=dl, max_n=2).axes)==n
    learn.dls.test_dl(files(learn)).show_batch(max_n=2)
    plt.close('all')
def m_lr_find(learn):
    found = []
    assert not moved(learn, lambda: found.append(learn.lr_find(num_it=8)))
    assert 1e-7<=found[0].valley<=10 and not list((learn.path/learn.model_dir).glob('tmp*'))
    plt.close('all')
def m_summary(learn):
    n = sum(p.numel() for p in learn.model.parameters())
    assert f'Total params: {n:,}' in learn.summary() and 'SSDLoss' in learn.summary()
def m_loop(learn):
    with redirect_stdout(StringIO()) as o: learn.show_training_loop()
    assert 'Start Fit' in o.getvalue() and 'PartsRecorder' in o.getvalue()
def m_contexts(learn):
    with learn.no_bar(), learn.no_mbar(), learn.no_logging(): assert learn.logger is noop and not learn.create_mbar
    with learn.loss_not_reduced(): assert learn.loss_func.reduction=='none'
    with learn.validation_context(): pass
    assert learn.loss_func.reduction=='mean'
def m_half(name, dtype):
    def f(learn):
        seen = []
        hook = learn.model.head.boxes[-1].register_forward_hook(lambda m,i,o: seen.append(o.dtype))
        try: assert getattr(learn, name)() is learn; learn.fit(1, 1e-4)
        finally: hook.remove(); learn.to_contiguous(to_fp32=True)
        assert set(seen)=={dtype} and not torch.is_autocast_enabled('cpu')
        assert not [o for o in learn.cbs if isinstance(o, MixedPrecision)]
    return f
def m_non_native(learn): refuses(learn.to_non_native_fp16, 'anchors', 'to_fp16()')
def m_parallel(learn):
    "`DataParallel` has no anchors; nothing is left of the attempt"
    refuses(learn.to_parallel, 'ParallelTrainer', 'distrib_ctx()')
    refuses(lambda: learn.parallel_ctx().__enter__(), 'ParallelTrainer')
    assert learn.detach_parallel() is learn
def m_distributed(learn):
    "One process alone: an ordinary fit"
    assert learn.to_distributed() is learn
    with learn.distrib_ctx(): assert moved(learn, lambda: learn.fit(1, 1e-3))
    assert learn.detach_distributed() is learn
def m_batch(learn):
    "one batch by hand: x, y, loss and gradient-free validation"
    learn.validate()
    learn.training,learn.dl = False,learn.dls.valid
    learn.one_batch(0, learn.dls.valid.one_batch())
    assert learn.x.shape[1:]==(3,64,64) and len(learn.y)==3 and learn.loss.isfinite()
    assert learn.to_detach(learn.loss).requires_grad is False
    learn._end_cleanup()
def m_opt(learn):
    learn.create_opt()
    assert len(learn.opt.hypers)==3
    learn.metrics = [*learn.metrics]
    assert [o.name for o in learn.metrics]==['cls_loss','box_loss','map']

METHODS = dict(
    fit=m_fit('fit', 1, 1e-3),
    fit_one_cycle=m_fit('fit_one_cycle', 1, 1e-3), fit_flat_cos=m_fit('fit_flat_cos', 1, 1e-3),
    fit_sgdr=m_fit('fit_sgdr', 1, 1, 1e-3), fine_tune=m_fine_tune, lr_find=m_lr_find,
    add_cb=m_callbacks, add_cbs=m_callbacks, added_cbs=m_callbacks, remove_cb=m_callbacks, remove_cbs=m_callbacks,
    removed_cbs=m_callbacks, ordered_cbs=m_callbacks, freeze=m_freezing, freeze_to=m_freezing, unfreeze=m_freezing,
    save=m_save, load=m_save, export=m_export, predict=m_predict, get_preds=m_get_preds, tta=m_tta, validate=m_validate,
    show_results=m_show_results, summary=m_summary, show_training_loop=m_loop, no_bar=m_contexts, no_mbar=m_contexts,
    no_logging=m_contexts, loss_not_reduced=m_contexts, validation_context=m_contexts,
    to_fp16=m_half('to_fp16', torch.float16),
    to_bf16=m_half('to_bf16', torch.bfloat16), to_fp32=m_half('to_bf16', torch.bfloat16),
    to_channelslast=m_half('to_channelslast', torch.float16), to_contiguous=m_half('to_bf16', torch.bfloat16),
    to_non_native_fp16=m_non_native, to_non_native_fp32=m_non_native,   # nothing to take back
    one_batch=m_batch, all_batches=m_fit('fit', 1, 1e-3), x=m_batch, y=m_batch,
    to_detach=m_batch, create_opt=m_opt, metrics=m_opt)

if find_spec('accelerate'): # `ssd_fastai.all` imports fastai.distributed, which adds these
    METHODS.update(to_parallel=m_parallel, parallel_ctx=m_parallel, detach_parallel=m_parallel,
                   to_distributed=m_distributed, distrib_ctx=m_distributed, detach_distributed=m_distributed)

def public(cls): return {o for o in dir(cls) if not o.startswith('_')}

def test_every_method_is_known():
    assert public(Learner)==set(METHODS), f'not in the table, or gone: {public(Learner)^set(METHODS)}'

def name_of(check): return next(k for k,v in METHODS.items() if v is check)

@pytest.mark.parametrize('check', dict.fromkeys(METHODS.values()), ids=name_of)
def test_method(learn, check): check(learn)

# --- callbacks

def fits(make, check=lambda learn,cb: True, n=1):
    "The callback takes part in a fit, and `check` holds afterwards"
    def f(learn):
        cb = make()
        learn.fit(n, 1e-3, cbs=cb)
        assert len(learn.recorder.values)==n and np.isfinite(learn.recorder.values[-1][0])
        assert check(learn, cb)
    return f
def refused(make, *words): return lambda learn: refuses(lambda: learn.fit(1, 1e-3, cbs=make()), *words)
def own(learn):
    names = {type(o).__name__ for o in learn.cbs}
    assert {'TrainEvalCallback','Recorder','CastToTensor','PartsRecorder','WarnCollapse','BnFreeze'} <= names
def c_progress(learn):
    learn.add_cb(ProgressCallback())
    with redirect_stdout(StringIO()): learn.fit(1, 1e-3, cbs=ShowGraphCallback())
    learn.remove_cb(ProgressCallback)
    assert len(learn.recorder.values)==1
def c_accumulate(learn):
    steps = []
    learn.fit(1, 1e-3, cbs=[GradientAccumulation(8), Callback(after_step=lambda _: steps.append(1))])
    assert len(steps)==1                        # 2 batches of 4, one step
def c_early(learn):
    with redirect_stdout(StringIO()): learn.fit(9, 1e-4, cbs=EarlyStoppingCallback('map', min_delta=1.1, patience=1))
    assert len(learn.recorder.values)<9
def c_reduce(learn):
    with redirect_stdout(StringIO()): learn.fit(3, 1e-3, cbs=ReduceLROnPlateau('map', min_delta=1.1, patience=1))
    assert np.isclose(learn.opt.opt.param_groups[0]['lr'], 1e-5)
def c_nan(learn):
    def spoil(_): learn.loss = learn.loss*float('nan')
    learn.fit(2, 1e-3, cbs=[TerminateOnNaNCallback(), Callback(after_loss=spoil)])
    assert len(learn.recorder.values)==0
def c_save(learn):
    "The file and the model at the end have the averaged weights whose figure was the best"
    with redirect_stdout(StringIO()): learn.fit(3, 1e-2, cbs=SaveModelCallback(monitor='valid_loss', fname='best'))
    best = min(o[1] for o in learn.recorder.values)
    assert np.isclose(learn.validate()[0], best, rtol=1e-4)
    learn.load('best')
    assert np.isclose(learn.validate()[0], best, rtol=1e-4)
def c_clip(learn):
    norms = []
    def norm(_):
        grads = [p.grad.norm() for p in learn.model.parameters() if p.grad is not None]
        norms.append(torch.stack(grads).norm().item())
    learn.fit(1, 1e-3, cbs=[GradientClip(0.1), Callback(after_step=norm)])
    assert max(norms)<0.101
def c_lrfinder(learn): assert not moved(learn, lambda: learn.fit(2, cbs=LRFinder(num_it=6)))
def c_dropout(learn):
    learn.model.add_module('dropout', nn.Dropout(0.5))
    try: learn.validate(cbs=MCDropoutCallback()); assert not learn.model.dropout.training
    finally: del learn.model.dropout
def c_gather(learn): assert len(learn.get_preds(save_preds=None)[0][0])==len(files(learn))   # it is get_preds' own

CALLBACKS = dict(
    Callback=fits(Callback), TrainEvalCallback=own, Recorder=own, CastToTensor=own,
    ProgressCallback=c_progress, ShowGraphCallback=c_progress,
    GatherPredsCallback=c_gather, FetchPredsCallback=fits(FetchPredsCallback, lambda l,cb: cb.preds[0][0].ndim==3),
    SkipToEpoch=fits(lambda: SkipToEpoch(1), lambda l,cb: len(l.recorder.values[0])==0, n=2),
    CollectDataCallback=fits(CollectDataCallback, lambda l,cb: len(cb.data)>=2),
    MixedPrecision=fits(lambda: MixedPrecision('bf16'),
                        lambda l,cb: isinstance(cb, DetectionMixedPrecision) and cb not in l.cbs),
    HookCallback=fits(lambda: HookCallback(hook=lambda m,i,o: o.shape), lambda l,cb: len(cb.hooks.stored)>10),
    ActivationStats=fits(lambda: ActivationStats(with_hist=True), lambda l,cb: len(cb.stats)==len(l.dls.train)),
    CSVLogger=fits(CSVLogger, lambda l,cb: len(pd.read_csv(l.path/'history.csv')['map'])==1),
    ParamScheduler=fits(lambda: ParamScheduler({'lr':SchedLin(1e-3,1e-4)}), lambda l,cb: l.opt.hypers[0]['lr']<1e-3),
    LRFinder=c_lrfinder, TerminateOnNaNCallback=c_nan,
    TrackerCallback=fits(lambda: TrackerCallback('map'), lambda l,cb: cb.best>=0),
    EarlyStoppingCallback=c_early, SaveModelCallback=c_save, ReduceLROnPlateau=c_reduce,
    GradientAccumulation=c_accumulate, GradientClip=c_clip,
    ShortEpochCallback=fits(lambda: ShortEpochCallback(0.4), lambda l,cb: len(l.recorder.losses)<=len(l.dls.train)),
    BnFreeze=fits(BnFreeze), MCDropoutCallback=c_dropout, ChannelsLast=fits(ChannelsLast),
    MixHandler=refused(MixHandler, 'boxes'),
    MixUp=refused(MixUp, 'blended', 'augment='), CutMix=refused(CutMix, 'blended', 'augment='),
    ModelResetter=refused(ModelResetter, 'recurrent'),
    RNNCallback=refused(RNNCallback, 'recurrent'), RNNRegularizer=refused(RNNRegularizer, 'recurrent'),
    ModelToHalf=refused(ModelToHalf, 'to_fp16()'),
    NonNativeMixedPrecision=refused(NonNativeMixedPrecision, 'to_fp16()'))

def callbacks(): return {k for k,v in vars(fva).items() if isinstance(v, type) and issubclass(v, Callback)}

def test_every_callback_is_known():
    assert callbacks()==set(CALLBACKS), f'not in the table, or gone: {callbacks()^set(CALLBACKS)}'

@pytest.mark.parametrize('name', CALLBACKS)
def test_callback(learn, name):
    n = len(learn.cbs)
    CALLBACKS[name](learn)
    assert len(learn.cbs)==n

@pytest.mark.skipif(not find_spec('accelerate'), reason='needs accelerate')
@pytest.mark.parametrize('name,words', dict(DistributedTrainer='ssd_fastai.distributed ssd_fastai.all',
                                            ParallelTrainer='anchors distrib_ctx()').items())
def test_trainers_of_fastai_are_refused(learn, name, words):
    import fastai.distributed
    cb = object.__new__(getattr(fastai.distributed, name))   # without the `Accelerator` that its __init__ makes
    refuses(lambda: learn.add_cb(cb), name, *words.split())

# --- the defaults are those of `ssd-train`

def fresh(dls, tmp_path, **kwargs):
    with redirect_stdout(StringIO()): learn = ssd_learner(dls, 'test_resnet', pretrained=False, path=tmp_path, **kwargs)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

@pytest.mark.parametrize('verb', ['fine_tune', 'fit_one_cycle'])
def test_python_trains_what_the_shell_trains(data, tmp_path, verb):
    "The same seed gives the same weights, by the defaults of either"
    def make(): return DetectionDataLoaders.from_voc(data, size=64, bs=4, num_workers=0, verify=False)
    with redirect_stdout(StringIO()): train_run(make, 'test_resnet', tmp_path/'run', epochs=2, weights='none', precision='float32')
    set_seed(42, reproducible=True)
    with redirect_stdout(StringIO()): dls = make()
    learn = fresh(dls, tmp_path)
    getattr(learn, verb)(2)
    shell = load_detector(tmp_path/'run'/'model.safetensors').model.state_dict()
    for k,v in learn.model.state_dict().items(): assert torch.allclose(v.float(), shell[k].float(), atol=1e-5), k

def test_fits_average_their_weights(dls, tmp_path):
    "The model is the average that was validated; another `AverageWeights` takes the place of the learner's own"
    learn = fresh(dls, tmp_path)
    seen  = []
    note  = Callback(after_train=lambda _: seen.append([o.clone() for o in learn.model.parameters()]))
    learn.fit(1, 1e-3, cbs=note)
    valid_loss = learn.recorder.values[-1][1]
    assert any((a!=b).any() for a,b in zip(seen[-1], learn.model.parameters()))
    assert np.isclose(learn.validate()[0], valid_loss, rtol=1e-4)
    learn.fit(1, 1e-3, cbs=[note, AverageWeights(0)])
    assert all((a==b).all() for a,b in zip(seen[-1], learn.model.parameters()))
    assert not [o for o in learn.cbs if isinstance(o, AverageWeights)]

def test_a_frozen_body_is_left_alone(dls, tmp_path):
    "Batch norm's statistics too, unless `train_bn`"
    for kwargs,moves in (({},False), (dict(train_bn=True),True)):
        learn = fresh(dls, tmp_path, **kwargs)
        learn.freeze()
        body = lambda: [o.clone() for o in learn.model.body.state_dict().values()]
        was  = body()
        learn.fit(1, 1e-3)
        assert any((a!=b).any() for a,b in zip(was, body()))==moves

# --- the operating point

def said_in(out): return out.getvalue().replace('█', '').strip()   # without what is left of a hidden bar

def test_evaluate_gives_the_operating_point(dls, tmp_path):
    learn = fresh(dls, tmp_path)
    with redirect_stdout(StringIO()): learn.fit_one_cycle(8, 1e-2)
    def evaluate(*args, **kwargs):
        with redirect_stdout(StringIO()) as o: return learn.evaluate(*args, progress=False, **kwargs),said_in(o)
    _,said = evaluate(learn.dls.test_dl(learn.dls.valid_ds.items, with_labels=True))
    assert not said and learn.thresholds.score==0.25                 # not the validation set
    _,said = evaluate(score=0.3)
    assert not said and learn.thresholds.score==0.25                 # not all detections
    ev,said = evaluate()
    assert ev.best_threshold() is not None and learn.thresholds.score==ev.best_threshold()
    assert '\n' not in said and f'{ev.best_threshold():.3g}' in said
    assert learn.detector().thresholds==learn.thresholds
    file = save_detector(learn, tmp_path/'m.safetensors')
    assert np.isclose(load_detector(file).thresholds.score, ev.best_threshold())
    learn.export('e.pkl')
    assert load_learner(tmp_path/'e.pkl').thresholds==learn.thresholds
    learn.thresholds = learn.thresholds.changed(score=0.4)           # by hand: it stays
    assert evaluate()[1]=='' and learn.thresholds.score==0.4 and learn.choose_threshold(ev) is None

def test_thresholds_of_ones_own_stay(dls, tmp_path):
    learn = fresh(dls, tmp_path, thresholds=Thresholds(score=0.6))
    with redirect_stdout(StringIO()) as o: learn.evaluate(progress=False)
    assert (said_in(o), learn.thresholds.score)==('', 0.6)

def test_nothing_right_found(dls, tmp_path):
    "A learner that finds nothing keeps its threshold, and says so"
    learn = fresh(dls, tmp_path)
    with torch.no_grad(): learn.model.head.classes[-1].bias.fill_(-30)
    with redirect_stdout(StringIO()) as o: learn.evaluate(progress=False)
    assert 'stays 0.25' in o.getvalue() and learn.thresholds.score==0.25

def test_tiles_go_with_the_learner(data, tmp_path):
    "What is trained on windows detects through them and counts whole images, saved or not"
    with redirect_stdout(StringIO()):
        tiled = DetectionDataLoaders.from_voc(data, size=64, bs=4, num_workers=0, verify=False, tile=80, tile_overlap=0.3)
    learn = fresh(tiled, tmp_path)
    n = len(tiled.valid.dataset.whole)
    assert len(tiled.valid_ds)>n
    with redirect_stdout(StringIO()): ev = learn.evaluate(progress=False)
    det = load_detector(save_detector(learn, tmp_path/'m.safetensors'))
    assert ev.counts['images']==n==len(learn.tta())==det.evaluate(tiled.valid.dataset.whole, progress=False).counts['images']
    assert (det.tile, det.tile_overlap)==((80,80), 0.3) and np.isclose(det.evaluate(tiled.valid.dataset.whole, progress=False).voc12, ev.voc12, atol=1e-3)
    assert len(learn.show_results(max_n=2).axes)==4
    window = next(o for o in tiled.valid_ds.items if o.window)
    assert learn.detect(window).size==window.size and len(learn.detect([window, window.file]))==2
    plt.close('all')

# --- in a cell

def test_a_learner_in_a_cell(dls, tmp_path):
    "A table, and one line of text: before a fit, after it, after `validate`, and for fastai's bare model"
    learn = fresh(dls, tmp_path)
    for act,words in ((noop,''), (lambda: learn.fit(1, 1e-3),'map'), (learn.validate,'valid_loss')):
        act()
        assert 'test_resnet' in repr(learn) and '64×64' in repr(learn) and '\n' not in repr(learn) and ' at 0x' not in repr(learn)
        assert learn._repr_html_().count('<tr>')==5+bool(words) and words in repr(learn)

def test_a_crowd_prints_short(shared):
    "`predict` with a low threshold finds hundreds: its names are one line"
    _,names,_ = shared.predict(files(shared)[0], score=0.)
    from IPython.lib.pretty import pretty
    assert len(names)>50 and len(pretty((names,)))<200 and '\n' not in pretty((names,)) and f'#{len(names)}' in repr(names)
    assert names==list(names) and repr(names[:2])==repr(list(names)[:2])

# --- what help and tab completion show

VERBS = {'detect','detector','evaluate','choose_threshold','fit_unfreezing','plot_losses'}

def test_tab_completion(shared): assert VERBS | set(METHODS) <= set(dir(shared))

@pytest.mark.parametrize('name', sorted(VERBS | {o for o in METHODS if o in vars(SSDLearner)}))
def test_help(name):
    f = getattr(SSDLearner, name)
    assert len(f.__doc__ or '')>30
    assert 'kwargs' not in inspect.signature(f).parameters or name in ('to_fp16', 'fit_unfreezing', 'to_distributed')

THRESHOLDS = 'score iou max_per_class max_per_image'

@pytest.mark.parametrize('name,options', dict(
    detect=f'{THRESHOLDS} bs', predict=f'{THRESHOLDS} with_input', tta=f'{THRESHOLDS} dl', evaluate=f'{THRESHOLDS} dl',
    show_results=f'{THRESHOLDS} max_n', get_preds='with_loss with_decoded', lr_find='num_it suggest_funcs',
    plot_losses='beta figsize').items())
def test_signature(name, options):
    assert set(options.split()) <= set(inspect.signature(getattr(SSDLearner, name)).parameters)

# --- a process that knows fastai alone

def test_fresh_process(shared, tmp_path):
    shared.export(tmp_path/'a.pkl')
    file = files(shared)[0]
    d = shared.detect(file, score=0.01)
    code = f'''
import warnings; warnings.filterwarnings('ignore')
from fastai.vision.all import *
learn = load_learner({str(tmp_path/'a.pkl')!r})
d,names,scores = learn.predict({str(file)!r}, score=0.01)
dl = learn.dls.test_dl([{str(file)!r}])
assert len(learn.detect([{str(file)!r}]))==len(learn.tta(dl=dl))==len(learn.get_preds(dl=dl, with_decoded=True)[2])==1
learn.show_results(dl=dl); learn.summary
assert {sorted(VERBS)!r} == sorted(set({sorted(VERBS)!r}) & set(dir(learn)))
print(len(d), round(scores.sum().item(), 3))'''
    res = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert not res.returncode, res.stderr[-2000:]
    n,total = res.stdout.split()[-2:]
    assert (int(n), float(total))==(len(d), pytest.approx(d.scores.sum().item(), abs=2e-3))
