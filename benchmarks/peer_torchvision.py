"""torchvision's detectors from random weights: its models, its reference augmentation, its suppression; a learning rate that follows the clock.

The augmentations are those of `references/detection/presets.py`, the names of which are given below.
"""
import math, os, time
from copy import deepcopy

import torch
from torchvision import tv_tensors
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

from ssd_fastai.images import load_image
from ssd_fastai.records import Detections

MEAN = (123., 117., 104.)
AUGMENT = dict(
    ssdlite = lambda: [v2.RandomIoUCrop(), v2.RandomHorizontalFlip()],
    ssd     = lambda: [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill={tv_tensors.Image:MEAN, 'others':0}), v2.RandomIoUCrop(),
                       v2.RandomHorizontalFlip()],
    hflip   = lambda: [v2.RandomHorizontalFlip()])

def build(name, n_classes, size, score, iou, max_per_image):
    "A torchvision detector with random weights everywhere; SSDs take the input size, RetinaNet the shorter side"
    limits = dict(score_thresh=score, nms_thresh=iou, detections_per_img=max_per_image, topk_candidates=1000)
    if name.startswith('retinanet'): limits.update(min_size=size, max_size=2*size)
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=n_classes, **limits)
    if name.startswith('ssd') and size != model.transform.min_size[0]:   # its anchors follow the maps
        t = model.transform
        model.transform = GeneralizedRCNNTransform(size, size, t.image_mean, t.image_std, size_divisible=1, fixed_size=(size, size))
    return model

class Cache(torch.utils.data.Dataset):
    "Decoded images with their boxes in memory, augmented when asked for"
    def __init__(self, records, vocab, tfms):
        self.tfm = v2.Compose([*tfms, v2.SanitizeBoundingBoxes(), v2.ToDtype(torch.float32, scale=True)])
        self.items = [(tv_tensors.Image(pil_to_tensor(load_image(r.file))), r.boxes[~r.difficult], r.labels(vocab)[~r.difficult]) for r in records]
    def __len__(self): return len(self.items)
    def __getitem__(self, i):
        img,b,l = self.items[i]
        return self.tfm(img, dict(boxes=tv_tensors.BoundingBoxes(b, format='XYXY', canvas_size=img.shape[-2:]), labels=l))

def one_cycle(pct, lr):
    "fastai's one cycle: up for a quarter, down by a cosine"
    if pct < 0.25: return lr/25 + (lr-lr/25)*(1-math.cos(math.pi*pct/0.25))/2
    return lr*(1+math.cos(math.pi*(pct-0.25)/0.75))/2 + lr*1e-5

def optimiser(kind, model, lr):
    "'adamw', or 'sgd' as in torchvision's reference"
    ps = [p for p in model.parameters() if p.requires_grad]
    if kind == 'adamw': return torch.optim.AdamW(ps, lr=lr, weight_decay=0.01, fused=True)
    return torch.optim.SGD(ps, lr=lr, momentum=0.9, weight_decay=4e-5)

def loss_of(model, xs, ys, device, bf16):
    "The sum of a batch's losses"
    xs,ys = [x.to(device) for x in xs],[{k:v.to(device) for k,v in y.items()} for y in ys]
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16): return sum(model(xs, ys).values())

def is_faster(model, batch, device):
    "Are steps in bfloat16 faster than in float32? A copy is tried, the third step of each counts"
    took = {}
    for bf16 in (False, True):
        m = deepcopy(model)
        for _ in range(3):
            start = time.perf_counter()
            loss_of(m, *batch, device, bf16).backward()
            if device != 'cpu': torch.cuda.synchronize()
            took[bf16] = time.perf_counter()-start
    return took[True] < took[False]

def train(model, ds, bs, lr, opt, seconds=None, epochs=None, device='cpu', bf16=False):
    "Train until the clock, or the number of epochs, says stop; `bf16`: in bfloat16 if that is faster"
    workers = min(16, os.cpu_count()) if device == 'cuda' else 0   # a card waits for one core's augmentation; two cores have enough to do
    dl  = torch.utils.data.DataLoader(ds, bs, shuffle=True, drop_last=True, collate_fn=lambda b: tuple(zip(*b)), num_workers=workers,
                                      persistent_workers=workers > 0)
    model.to(device, memory_format=torch.channels_last).train()   # faster on a CPU and a GPU alike
    bf16 = bf16 and is_faster(model, next(iter(dl)), device)
    opt = optimiser(opt, model, lr)
    start,steps = time.perf_counter(),0
    past = lambda: time.perf_counter()-start
    done = lambda: past()/seconds if seconds else steps/(epochs*len(dl))
    while done() < 1:
        for xs,ys in dl:
            if done() >= 1: break
            for g in opt.param_groups: g['lr'] = one_cycle(done(), lr)
            opt.zero_grad()
            loss_of(model, xs, ys, device, bf16).backward()
            opt.step()
            steps += 1
    return dict(images=steps*bs, seconds=past(), precision='bf16' if bf16 else 'float32')

@torch.no_grad()
def found(model, records, vocab, device='cpu'):
    "`Detections` of each record in original pixels; thresholds are the model's own"
    model.eval()
    res = []
    for r in records:
        o = model([pil_to_tensor(load_image(r.file)).float().div(255).to(device)])[0]
        b,l,s = (o[k][o['labels'] > 0].cpu() for k in ('boxes', 'labels', 'scores'))   # RetinaNet has an output for label 0 as well
        res.append(Detections(b, l, s, vocab, r.size, file=r.file))
    return res
