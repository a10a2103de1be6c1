"""How time and memory grow: with the image's side (and so the anchors), the objects per image, the classes, the batch, and the number of files.

    python benchmarks/growth.py [AXIS …]     # into benchmarks/results/growth.json, and images/growth.png

Each point runs in a process of its own, so that its peak memory is its own. Seconds are the median of several calls; memory is the peak of the process
above what it held before the first call. The axis `files` runs `ssd-predict` as a user does, and its memory is that of the whole process.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile, time
from pathlib import Path

from bccd import ROOT, machine, write

RESULTS = ROOT/'benchmarks'/'results'/'growth.json'
AXES = dict(side=(128,256,512,1024), objects=(1,4,16,64,256,1024), classes=(1,4,16,64,256,1024), batch=(1,2,4,8,16,32), files=(100,1000,10_000))
TITLE = dict(side='detect: side of the image, pixels', objects='matching and loss: objects per image', classes='loss and suppression: classes',
             batch='training step: images in a batch', files='ssd-predict: files')

def memory(line):
    "VmRSS, what this process holds, or VmHWM, its peak since `new_peak`, in MB (Linux)"
    return next(int(o.split()[1]) for o in Path('/proc/self/status').read_text().splitlines() if o.startswith(line))/1024

def new_peak(): Path('/proc/self/clear_refs').write_text('5')

def model_of(classes, size):
    import torch
    from ssd_fastai.model import create_ssd
    torch.manual_seed(0)
    return create_ssd('resnet18', classes+1, size)

def objects_of(images, n, classes):
    "Random boxes [B,n,4] in the unit frame and their labels"
    import torch
    g  = torch.Generator().manual_seed(0)
    xy = torch.rand(images, n, 2, generator=g)*1.4-1
    return torch.cat([xy, xy+torch.rand(images, n, 2, generator=g)*0.5+0.1], -1), torch.randint(1, classes+1, (images,n), generator=g)

def job_side(n):
    "Detect in an array of n×n pixels"
    import numpy as np
    from ssd_fastai.detector import Detector
    from ssd_fastai.nms import Thresholds
    det = Detector(model_of(20, n).eval(), ['#na#',*map(str, range(20))], n, thresholds=Thresholds(0.25))
    img = np.random.default_rng(0).integers(0, 255, (n,n,3), dtype=np.uint8)
    return (lambda: det.detect(img)), len(det.model.anchors)

def loss_of(images, objects, classes, size=(256,320)):
    "A function that computes the loss of drawn outputs, and its gradient"
    import torch
    from ssd_fastai.losses import SSDLoss
    model = model_of(classes, size)
    loss,A = SSDLoss(model, box='giou', box_weight=2.),len(model.anchors)
    pred = [(torch.randn(images, A, o)-c).requires_grad_() for o,c in ((classes+1,4),(4,0))]
    boxes,labels = objects_of(images, objects, classes)
    return lambda: torch.autograd.grad(loss(pred, boxes, labels), pred)

def job_objects(n): return loss_of(8, n, 20), None

def job_classes(n):
    "The loss of one image, and suppression of its scores"
    import torch
    from ssd_fastai.nms import Thresholds, suppress
    loss = loss_of(1, 4, n)
    A = len(model_of(n, (256,320)).anchors)
    xy = torch.rand(1, A, 2)*200
    boxes,scores = torch.cat([xy, xy+torch.rand(1, A, 2)*60], -1),(torch.randn(1, A, n)-5).sigmoid()
    def f():
        loss()
        suppress(boxes, scores, Thresholds(score=0.05))
    return f, None

def job_batch(n):
    "Network, loss and gradient of n images"
    import torch
    from ssd_fastai.losses import SSDLoss
    model = model_of(20, (256,320)).train().to(memory_format=torch.channels_last)
    loss  = SSDLoss(model, box='giou', box_weight=2.)
    x,(boxes,labels) = torch.rand(n, 3, 256, 320).to(memory_format=torch.channels_last),objects_of(n, 4, 20)
    def f():
        model.zero_grad(set_to_none=True)
        loss(model(x), boxes, labels).backward()
    return f, None

def point(axis, n):
    "In a process of its own: seconds of a call, and memory"
    f,anchors = globals()[f'job_{axis}'](n)
    new_peak()
    before = memory('VmRSS')
    f()
    took = []
    while len(took)<3 or (sum(took)<3 and len(took)<30):
        t = time.perf_counter()
        f()
        took.append(time.perf_counter()-t)
    return dict(seconds=statistics.median(took), mb=memory('VmHWM')-before, **({'anchors':anchors} if anchors else {}))

def files_point(n):
    "`ssd-predict` over n small files: seconds and peak memory of the whole process"
    import shutil
    model,images = ROOT/'tests'/'golden'/'detector.safetensors',sorted((ROOT/'tests'/'golden'/'images').iterdir())
    with tempfile.TemporaryDirectory() as tmp:
        (Path(tmp)/'in').mkdir()
        for i in range(n): shutil.copy(images[i%len(images)], Path(tmp)/'in'/f'{i:05d}{images[i%len(images)].suffix}')
        code = ("import resource,sys; sys.argv = ['ssd-predict',*sys.argv[1:]]; from ssd_fastai.cli import ssd_predict; ssd_predict(); "
                "print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)")
        t = time.perf_counter()
        p = subprocess.run([sys.executable, '-c', code, model, 'in', '--json', 'found.json'], cwd=tmp, capture_output=True, text=True, check=True)
        s = time.perf_counter()-t
        assert f'{n:,}' in p.stdout+p.stderr, p.stdout   # it says how many images it saw
    return dict(seconds=s, mb=float(p.stdout.split('PEAK')[1]))

def picture(rows):
    "Time and memory against each axis, both logarithmic; a dotted line has the slope of what is linear"
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    fig,axs = plt.subplots(1, 5, figsize=(15,3.1), layout='constrained')
    for ax,(axis,title) in zip(axs, TITLE.items()):
        here = sorted((o for o in rows if o['axis']==axis), key=lambda o: o['n'])
        x,t  = [o['n'] for o in here],[o['seconds'] for o in here]
        power = 2 if axis=='side' else 1
        ax.loglog(x, t, 'o-', label='seconds')
        ax.loglog(x, [t[-1]*(o/x[-1])**power for o in x], ':', c='0.5', label='linear in pixels' if axis=='side' else 'linear')
        mb = ax.twinx()
        mb.loglog(x, [max(o['mb'], .1) for o in here], 's--', c='C1', ms=4, label='MB, right')
        mb.set_ylim(1, 2e4)
        ax.set(title=title, xlabel='')
        ax.title.set_fontsize(9)
        ax.set_xticks(x, [f'{o:,}' for o in x], fontsize=7)
        ax.minorticks_off()
        ax.legend(*[a+b for a,b in zip(ax.get_legend_handles_labels(), mb.get_legend_handles_labels())], fontsize=7, loc='upper left')
        ax.grid(alpha=.3)
    fig.savefig(ROOT/'images/growth.png', dpi=80)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('axes', nargs='*', metavar='AXIS', help=f'{", ".join(AXES)}; left out: all')
    p.add_argument('--point', nargs=2, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.point:
        print('POINT', json.dumps(point(a.point[0], int(a.point[1]))))
        sys.exit()
    rows = json.loads(RESULTS.read_text())['rows'] if RESULTS.exists() else []
    for axis in a.axes or AXES:
        for n in AXES[axis]:
            if axis=='files': got = files_point(n)
            else:
                out = subprocess.run([sys.executable, __file__, '--point', axis, str(n)], capture_output=True, text=True, check=True).stdout
                got = json.loads(out.split('POINT')[1])
            rows = [o for o in rows if (o['axis'],o['n'])!=(axis,n)] + [dict(axis=axis, n=n, **got)]
            print(rows[-1], flush=True)
            write(RESULTS, json.dumps(dict(rows=rows, machine=machine()), indent=1)+'\n')
    picture(rows)
