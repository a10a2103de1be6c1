"""How fast each part is beside a peer that does the same, in one process and one run.

    python benchmarks/speed.py [SECTION …] [--runs 15]

Each ratio is paired: ours and the peer take turns (A B A B …), each turn gives one ratio, and the table shows their median and the middle half of
them. Run it with nothing else running. The results go to `benchmarks/results/speed.json`, with the machine; sections that were not run keep theirs.
"""
import argparse, json, os, platform, statistics, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT/'benchmarks'/'results'/'speed.json'

def once(f):
    "Seconds that one call of `f` takes"
    t = time.perf_counter()
    f()
    return time.perf_counter()-t

def paired(a, b, runs=15, warm=2):
    "Seconds of `a` and `b` and the ratio a/b, from `runs` turns of both: medians, and the quartiles of the ratio"
    for _ in range(warm): a(); b()
    turns  = [(once(a), once(b)) for _ in range(runs)]
    ratios = sorted(x/y for x,y in turns)
    low,mid,high = statistics.quantiles(ratios, n=4) if runs>1 else ratios*3
    return dict(ours=statistics.median(x for x,_ in turns), peer=statistics.median(y for _,y in turns), ratio=mid, low=low, high=high, runs=runs)

def machine():
    "Processor, what it has for small number formats, cores and versions"
    import torch, torchvision
    text  = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    flags = next((o for o in text.splitlines() if o.startswith('flags')), '').split()
    name  = next((o.split(':')[1].strip() for o in text.splitlines() if o.startswith('model name')), platform.processor())
    has   = [o for o in ('avx2','avx512f','avx512_bf16','avx512_vnni','amx_bf16','amx_int8') if o in flags]
    return dict(processor=name, has=has, cores=os.cpu_count(), threads=torch.get_num_threads(), torch=torch.__version__, torchvision=torchvision.__version__)

# ---- sections: each is a function of the number of runs, and yields (what was done, the peer, at most this ratio, the dict of `paired`)

SECTIONS = {}

def drawn_detections(images=4952, each=80, objects=12_234, classes=20, seed=0):
    "Drawn detections and truths as many as those of VOC2007's test split: a third of the detections lie on objects"
    import numpy as np
    from ssd_fastai.records import Detections, GroundTruth
    rng,vocab,size = np.random.default_rng(seed),['#na#', *(f'c{i}' for i in range(classes))],(375,500)
    count = rng.multinomial(objects-images, np.full(images, 1/images))+1
    dets,truths = [],[]
    for n in count:
        xy,l = rng.uniform(0, 250, (n,2)),rng.integers(1, classes+1, n)
        b    = np.concatenate([xy, xy+rng.uniform(20, 120, (n,2))], 1)
        xy   = rng.uniform(0, 250, (each,2))
        d,k  = np.concatenate([xy, xy+rng.uniform(20, 120, (each,2))], 1),rng.integers(1, classes+1, each)
        at   = rng.permutation(each)[:each//3]
        i    = rng.integers(0, n, len(at))
        d[at],k[at] = b[i]+rng.normal(0, 4, (len(at),4)),l[i]
        dets.append(Detections(d, k, rng.random(each), vocab, size))
        truths.append(GroundTruth(b, [vocab[o] for o in l], size=size))
    return dets, truths, vocab

def evaluation(runs):
    "All three forms of AP beside faster-coco-eval's COCO AP; both begin with the detections as each wants them"
    import contextlib, io
    import faster_coco_eval as fast
    from ssd_fastai.metrics import evaluate_detections
    dets,truths,vocab = drawn_detections()
    box  = lambda o: [o[0], o[1], o[2]-o[0], o[3]-o[1]]
    anns = [(i+1,box(b),vocab.index(n)) for i,t in enumerate(truths) for b,n in zip(t.boxes.tolist(), t.names)]
    gt   = dict(images=[dict(id=i+1, width=500, height=375) for i in range(len(truths))], categories=[dict(id=i, name=o) for i,o in enumerate(vocab) if i],
                annotations=[dict(id=k+1, image_id=i, bbox=b, category_id=l, iscrowd=0, area=b[2]*b[3]) for k,(i,b,l) in enumerate(anns)], info={})
    rows = [(i+1,box(b),l,s) for i,d in enumerate(dets) for b,l,s in zip(d.boxes.tolist(), d.labels.tolist(), d.scores.tolist())]
    said = io.StringIO()
    with contextlib.redirect_stdout(said): coco = fast.COCO(gt)
    def peer():
        with contextlib.redirect_stdout(said):
            e = fast.COCOeval_faster(coco, coco.loadRes([dict(image_id=i, bbox=b, category_id=l, score=s) for i,b,l,s in rows]), 'bbox')
            e.evaluate()
            e.accumulate()
        return e.eval['precision'][...,0,-1].mean()
    ours = lambda: evaluate_detections(dets, truths).coco
    if abs(ours()-peer())>1e-4: raise SystemExit(f'not the same COCO AP: {ours()}, {peer()}')
    what = f'evaluation of {len(rows):,} detections, {len(anns):,} objects, all three forms'
    yield what, 'faster-coco-eval, COCO AP alone', 0.35, paired(ours, peer, runs)

SECTIONS['evaluation'] = evaluation

def drawn_photos(folder, n, hw, quality=90):
    "Records of `n` drawn photographs of size `hw` in `folder`: a gradient, some grain and eight bright rectangles each"
    import numpy as np
    from PIL import Image
    from ssd_fastai.records import GroundTruth
    Path(folder).mkdir(parents=True)
    rng,(h,w),res = np.random.default_rng(0),hw,[]
    ys,xs = np.mgrid[:h,:w]
    for i in range(n):
        im   = np.stack([xs*200//w, ys*200//h, (xs+ys)*100//(w+h)], -1) + rng.integers(0, 24, (h,w,1))
        xy   = rng.uniform(0, .7, (8,2))*(w,h)
        b    = np.concatenate([xy, xy+rng.uniform(.05, .25, (8,2))*(w,h)], 1).round()
        for x1,y1,x2,y2 in b.astype(int): im[y1:y2,x1:x2] = rng.integers(0, 255, 3)
        Image.fromarray(im.clip(0, 255).astype(np.uint8)).save(file := Path(folder)/f'{i}.jpg', quality=quality)
        res.append(GroundTruth(b, ['thing']*8, size=hw, file=file))
    return res

def loading(runs):
    "An epoch of loading and augmentation in this process: the batch's against torchvision's transforms one by one, and photographs of 12 megapixels against thumbnails"
    import tempfile
    from ssd_fastai.data import DetectionDataLoaders, default_augment
    def loader(recs, **kw): return DetectionDataLoaders.from_records(recs[1:], recs[:1], size=(256,320), bs=8, num_workers=0, verify=False, device='cpu', **kw).train
    def epoch(dl): return lambda: [None for _ in dl]
    with tempfile.TemporaryDirectory() as tmp:
        recs = drawn_photos(f'{tmp}/vga', 33, (480,640))
        each = epoch(loader(recs, augment=default_augment()))
        one  = lambda res: {**res, 'ours':res['ours']/32, 'peer':res['peer']/32}
        yield 'load and augment an image, kept in memory', 'torchvision transforms, decoded each time', 0.5, one(paired(epoch(loader(recs, cache='ram')), each, runs))
        yield 'load and augment an image, decoded each time', 'torchvision transforms, decoded each time', 1, one(paired(epoch(loader(recs, cache=None)), each, runs))
        big,small = (drawn_photos(f'{tmp}/{w}', 17, (w*3//4,w)) for w in (4000,400))
        for where in ('ram','disk'):
            os.environ['XDG_CACHE_HOME'] = tmp
            a,b = (epoch(loader(o, cache=where)) for o in (big,small))
            yield f'an epoch after the first, 4000×3000, cache {where}', '400×300', 1.1, paired(a, b, runs)
        yield 'an epoch after the first, 4000×3000, cache ram', 'no cache', None, paired(epoch(loader(big, cache='ram')), epoch(loader(big, cache=None)), min(runs, 3), 1)

SECTIONS['loading'] = loading

# ---- suppression, and matching with loss

def ssd300_anchors(size=300):
    "The 8,732 anchors of torchvision's SSD300, xyxy in pixels: [8732,4]"
    import torch
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList
    make = DefaultBoxGenerator([[2],[2,3],[2,3],[2,3],[2],[2]], steps=[8,16,32,64,100,300])
    maps = [torch.zeros(1, 1, o, o) for o in (38,19,10,5,3,1)]
    return make(ImageList(torch.zeros(1, 3, size, size), [(size,size)]), maps)[0].clamp(0, size)

def drawn_scores(images, trained, classes=20, size=300, seed=0):
    """Boxes [B,8732,4] in pixels and scores [B,8732,classes]: all scores random and different, or as a trained model gives them,
    near 0 but for the anchors around 2 to 6 objects per image, the better ones higher"""
    import torch
    from torchvision.ops import box_iou
    g       = torch.Generator().manual_seed(seed)
    anchors = ssd300_anchors(size)
    boxes   = anchors + torch.randn(images, len(anchors), 4, generator=g)*4
    if not trained:
        n = images*len(anchors)*classes
        return boxes.clamp(0, size), ((torch.randperm(n, generator=g).double()+0.5)/n).float().view(images, -1, classes)
    logits = torch.randn(images, len(anchors), classes, generator=g)*0.8-8.5
    for i in range(images):
        n     = int(torch.randint(2, 7, (1,), generator=g))
        xy,wh = torch.rand(n, 2, generator=g)*size*0.6,(0.1+0.4*torch.rand(n, 2, generator=g))*size
        objs  = torch.cat([xy, xy+wh], 1)
        iou,own = box_iou(anchors, objs).max(1)
        near  = (iou>0.3).nonzero()[:,0]
        kind  = torch.randint(classes, (n,), generator=g)[own[near]]
        logits[i,near,kind] = (iou[near]-0.55)*12+torch.randn(len(near), generator=g)
        boxes[i,near] = torch.lerp(anchors[near], objs[own[near]], 0.8)+torch.randn(len(near), 4, generator=g)*3
    return boxes.clamp(0, size), logits.sigmoid()

def torchvision_suppression(boxes, scores, t, top=400, size=300):
    "torchvision's `SSD.postprocess_detections` without decoding and softmax: both sides get boxes and scores"
    import torch
    from unittest.mock import patch
    from torchvision.models.detection import ssd
    o = ssd.SSD.__new__(ssd.SSD)
    torch.nn.Module.__init__(o)
    o.box_coder = type('Coder', (), dict(decode_single=staticmethod(lambda boxes, anchors: boxes)))
    o.score_thresh,o.nms_thresh,o.detections_per_img,o.topk_candidates = t.score,t.iou,t.max_per_image,top
    scores = torch.cat([torch.zeros_like(scores[...,:1]), scores], -1)
    with patch.object(ssd.F, 'softmax', lambda x, dim: x):
        return o.postprocess_detections(dict(bbox_regression=boxes, cls_logits=scores), list(boxes), [(size,size)]*len(boxes))

def suppression(runs):
    "8,732 anchors × 20 classes, the same threshold on both sides, and the same boxes kept"
    import torch
    from ssd_fastai.nms import Thresholds, suppress
    t = Thresholds(score=0.01, iou=0.45, max_per_image=200)
    for trained,aim in ((False,1/5), (True,1/3)):
        for images,vote in ((8,None), (1,None), (8,0.65), (1,0.65)):
            boxes,scores = drawn_scores(images, trained)
            top  = max(400, int(t.passes(scores).sum(1).max())) if trained else 400  # its default, unless it would leave boxes out
            ours,peer = lambda: suppress(boxes, scores, t, vote=vote),lambda: torchvision_suppression(boxes, scores, t, top)
            for (b,l,s),o in zip(ours(), peer(), strict=True):
                assert torch.equal(l, o['labels']) and torch.equal(s, o['scores']) and (vote or torch.equal(b, o['boxes']))
            name = 'scores of a trained model' if trained else 'random scores'
            yield (f'suppression, {name}, {images} image{"s"*(images>1)}'+(', boxes vote' if vote else ''), 'torchvision SSD', aim,
                   paired(ours, peer, runs))

SECTIONS['suppression'] = suppression

def torchvision_loss(kind, anchors, boxes, labels, classes):
    "torchvision's matching and loss, of SSD or RetinaNet, as a function of logits and offsets"
    import torch
    from torchvision.models.detection import _utils, retinanet, ssd
    from torchvision.ops import box_iou
    coder,targets = _utils.BoxCoder((10.,10.,5.,5.)),[dict(boxes=b, labels=l) for b,l in zip(boxes, labels)]
    if kind=='SSD':
        match,net = _utils.SSDMatcher(0.5),ssd.SSD.__new__(ssd.SSD)
        torch.nn.Module.__init__(net)
        net.box_coder,net.neg_to_pos_ratio = coder,3.
        loss = lambda out, own: net.compute_loss(targets, out, [anchors]*len(boxes), own)
    else:
        match = _utils.Matcher(0.5, 0.4, allow_low_quality_matches=True)
        net   = retinanet.RetinaNetHead(8, 1, classes)
        net.regression_head._loss_type,net.regression_head.box_coder = 'smooth_l1',coder
        loss = lambda out, own: net.compute_loss(targets, out, [anchors]*len(boxes), own)
    def f(logits, offsets):
        own = [match(box_iou(o['boxes'], anchors)) for o in targets]
        return sum(loss(dict(cls_logits=logits, bbox_regression=offsets), own).values())
    return f

def loss(runs):
    "Matching and loss of a batch with 4 objects per image and 20 classes, forward and backward"
    import torch
    from types import SimpleNamespace
    from ssd_fastai.anchors import DEFAULT_RECIPE
    from ssd_fastai.boxes import px_to_unit, to_cxcywh, to_xyxy
    from ssd_fastai.losses import SSDLoss
    from ssd_fastai.match import BoxCoder
    default = DEFAULT_RECIPE.make([(32,40),(16,20),(8,10),(4,5),(2,3)])[0]
    for anchors in (default, to_cxcywh(px_to_unit(ssd300_anchors(), 300))):
        for n in (8,4):
            g     = torch.Generator().manual_seed(0)
            xy    = torch.rand(n, 4, 2, generator=g)*1.4-1
            boxes = torch.cat([xy, xy+torch.rand(n, 4, 2, generator=g)*0.5+0.1], -1)
            labels = torch.randint(1, 21, (n,4), generator=g)
            pred   = [(torch.randn(n, len(anchors), o, generator=g)-c).requires_grad_() for o,c in ((21,2),(4,0))]
            mine   = SSDLoss(SimpleNamespace(anchors=anchors, cells=anchors[:,2:], coder=BoxCoder()))
            step   = lambda f: torch.autograd.grad(f(*pred), pred)
            for kind in ('SSD','RetinaNet'):
                theirs = torchvision_loss(kind, to_xyxy(anchors), boxes, labels, 21)
                res = paired(lambda: step(lambda *p: mine(p, boxes, labels)), lambda: step(theirs), runs)
                yield f'matching and loss, {len(anchors):,} anchors, batch {n}', f'torchvision {kind}', 1/2, res

SECTIONS['loss'] = loss

# ---- use and start

def use(runs):
    "File to detections: a JPEG of 640×480, a resnet18 at 300 pixels with 20 classes and random weights, beside torchvision's SSDlite and other ways of its own"
    import tempfile, torch, torchvision
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor
    from ssd_fastai.detector import Detector
    from ssd_fastai.files import load_detector, save_detector
    from ssd_fastai.model import create_ssd
    from ssd_fastai.nms import Thresholds
    torch.manual_seed(0)
    plain = Detector(create_ssd('resnet18', 21, 300).eval(), ['#na#',*map(str, range(20))], 300, thresholds=Thresholds(0.25))
    lite  = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21, score_thresh=0.25).eval()
    def theirs(files):
        with torch.inference_mode(): return lite([pil_to_tensor(Image.open(o).convert('RGB')).float().div_(255) for o in files])
    with tempfile.TemporaryDirectory() as tmp:
        files = [o.file for o in drawn_photos(f'{tmp}/vga', 16, (480,640))]
        phone = [o.file for o in drawn_photos(f'{tmp}/phone', 1, (3000,4000))]
        made  = save_detector(plain, f'{tmp}/m.safetensors')
        dets  = {o: load_detector(made, o) for o in ('float32','auto')}
        one,many = lambda d: lambda: d.detect(files[0]), lambda d: lambda: d.detect(files)
        for words,det in dets.items():
            yield f'detect, one file, {words}', 'the plain network (a view, channels last)', None, paired(one(det), one(plain), runs)
            yield f'detect, 16 files, {words}', 'the plain network (a view, channels last)', None, paired(many(det), many(plain), max(runs//3, 3), 1)
            yield f'detect, one file, {words}', 'ssdlite320', 1, paired(one(det), lambda: theirs(files[:1]), runs)
            yield f'detect, 16 files, {words}', 'ssdlite320', 1, paired(many(det), lambda: theirs(files), max(runs//3, 3), 1)
        yield 'detect, a JPEG of 4000×3000', 'all of its pixels decoded', None, paired(lambda: dets['float32'].detect(phone[0]), lambda: dets['float32'].detect(Image.open(phone[0])), runs)

SECTIONS['use'] = use

def start(runs):
    "From the start of a process: the help of a script beside Python alone, the first detection beside the import of torch and torchvision"
    import subprocess
    model,image = ROOT/'tests'/'golden'/'detector.safetensors', next((ROOT/'tests'/'golden'/'images').iterdir())
    run = lambda code: lambda: subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
    say = "import sys; sys.argv = ['ssd-predict','--help']; from ssd_fastai.cli import ssd_predict; ssd_predict()"
    use = f'from ssd_fastai.files import load_detector; load_detector({str(model)!r}).detect({str(image)!r})'
    yield 'ssd-predict --help', 'python -c pass', None, paired(run(say), run('pass'), runs)
    yield 'start, load_detector and one detect', 'import torch, torchvision', None, paired(run(use), run('import torch, torchvision'), max(runs//2, 3), 1)

SECTIONS['start'] = start

# ---- the training step

def step(runs):
    "A fit as `ssd_learner` and `ssd-train` run it (data, network, loss, optimiser, averaged weights) beside forward and backward of its body alone"
    import tempfile, torch
    from ssd_fastai.callbacks import DepthwiseInFloat32
    from ssd_fastai.data import DetectionDataLoaders
    from ssd_fastai.detector import choose_precision
    from ssd_fastai.learner import ssd_learner
    with tempfile.TemporaryDirectory() as tmp:
        recs = drawn_photos(f'{tmp}/vga', 97, (480,640))
        for arch in ('resnet18', 'tf_efficientnet_lite0'):
            for bs in (8,4):
                dls = DetectionDataLoaders.from_records(recs[1:], recs[:1], size=(256,320), bs=bs, num_workers=0, verify=False, device='cpu', cache='ram')
                learn = ssd_learner(dls, arch, pretrained=False)
                how   = choose_precision('auto', dls.device, training=True)
                if how!='float32': getattr(learn, f'to_{how}')()
                x = torch.rand(bs, 3, 256, 320).to(memory_format=torch.channels_last)
                body = learn.model.body
                def alone():
                    body.train()
                    for _ in range(len(dls.train)):
                        with torch.autocast('cpu', torch.bfloat16, enabled=how=='bf16'), DepthwiseInFloat32(): maps = body(x)
                        sum(o.float().mean() for o in maps).backward()
                        body.zero_grad(set_to_none=True)
                def fit():
                    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-4, cbs=[NoValidation()])
                res = paired(fit, alone, max(runs//3, 3), 1)
                n = len(dls.train)*bs
                yield f'the whole fit, an image, {arch}, batch {bs}, {how}', 'its body alone', 1.35, {**res, 'ours':res['ours']/n, 'peer':res['peer']/n}

def NoValidation():
    "A callback that leaves the validation out"
    from fastai.callback.core import Callback, CancelValidException
    class No(Callback):
        def before_validate(self): raise CancelValidException
    return No()

SECTIONS['step'] = step

# ---- the table

def table(res):
    "The results as a Markdown table"
    lines = ['| what | beside | ours, ms | theirs, ms | ratio (middle half) | aim |', '|---|---|---|---|---|---|']
    for name,rows in res['sections'].items():
        for r in rows['rows']:
            aim = f'≤ {r["aim"]:g}' if r['aim'] else '–'
            lines.append(f'| {r["what"]} | {r["peer_is"]} | {r["ours"]*1e3:.3g} | {r["peer"]*1e3:.3g} | {r["ratio"]:.2f} ({r["low"]:.2f}–{r["high"]:.2f}) | {aim} |')
    return '\n'.join(lines)

def main(names, runs):
    res = json.loads(RESULTS.read_text()) if RESULTS.exists() else dict(sections={})
    for name in names or SECTIONS:
        rows = []
        for what,peer,aim,o in SECTIONS[name](runs):
            rows.append(dict(what=what, peer_is=peer, aim=aim, **o))
            print(f'{what} / {peer}: {o["ratio"]:.2f} ({o["low"]:.2f}–{o["high"]:.2f})', flush=True)
        res['sections'][name] = dict(machine=machine(), rows=rows)
        RESULTS.write_text(json.dumps(res, indent=1)+'\n')
    print(table(res))

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('sections', nargs='*', metavar='SECTION', help='which sections; all if left out')
    p.add_argument('--runs', type=int, default=15, help='turns of both sides')
    a = p.parse_args()
    main(a.sections, a.runs)
