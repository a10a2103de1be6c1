"""The post that this package grew from, mistake for mistake: what the lower rungs of `ladder.py` are made of.

`nbs/50_seed.ipynb` tells what each of S1 to S17 does. Here are those that change a result on a CPU. Left out: S5 (computed and dropped), S8 (cannot
run without a graphics card), S12 (there is no metric to reproduce), S14 (the earlier post's shift of the targets: the seed says that it leaves
this step out, and its anchors lie in -1 to 1), S15 (an error counts as a loss of 0: what is left of it is that an image without objects teaches nothing).
"""
import torch
from torch import nn, Tensor
from torchvision.ops import nms

from ssd_fastai.anchors import AnchorRecipe
from ssd_fastai.boxes import box_iou, to_xyxy
from ssd_fastai.head import OutConv, SSDMultiHead
from ssd_fastai.losses import class_loss
from ssd_fastai.match import BoxCoder, match_anchors

# ---- the head

def seed_flatten(x, k):
    "S1: `[B,k*n,H,W]` to `[B,H*W*k,n]`, shapes slow and cells fast, while the anchors have cells slow and shapes fast"
    bs,f = x.shape[:2]
    return x.reshape(bs, f//k, -1).permute(0,2,1)

class SeedOutConv(OutConv):
    "The seed's output layer (S1)"
    def forward(self, x): return [seed_flatten(o(x), self.k) for o in (self.oconv1,self.oconv2)]

class SeedMultiHead(SSDMultiHead):
    "S1 in today's head"
    def outs(self, maps): return tuple(torch.cat([seed_flatten(f(o), self.k) for o in maps], 1) for f in (self.classes,self.boxes))

class SeedRecipe(AnchorRecipe):
    "S2: x slow and y fast, as fastai v1's (y,x) boxes had it, while today's maps have y slow and x fast"
    def make(self, grids):
        turn = lambda o,hw: o.view(*hw, self.k, -1).transpose(0,1).reshape(len(o), -1)
        n    = [h*w*self.k for h,w in grids]
        return tuple(torch.cat([turn(p,hw) for p,hw in zip(o.split(n), grids)]) for o in super().make(grids))

# ---- the loss

def seed_iou(a, b):
    "S13: minimum and maximum exchanged: boxes `[N,4]` and `[M,4]` that lie apart overlap, the same box does not"
    gap   = torch.maximum(a[:,None,:2], b[None,:,:2]) - torch.minimum(a[:,None,2:], b[None,:,2:])
    inter = gap.clamp(min=0).prod(-1)
    area  = lambda o: (o[:,2:]-o[:,:2]).prod(1)
    return inter/(area(a)[:,None]+area(b)-inter)

def seed_match(anchors, boxes, labels, iou):
    "S6: one image's (class, object, whether its box is learned) for each anchor: every anchor has the class of its best object"
    over = iou(boxes, to_xyxy(anchors))                  # [M,A]
    best,idx = over.max(0)
    for i,a in enumerate(over.max(1).indices.tolist()): best[a],idx[a] = 1.99,i
    return labels[idx], idx, best>0.4

class SeedLoss(nn.Module):
    "The seed's loss; each argument cures one mistake"
    def __init__(self,
        model,            # has `anchors`, `cells` and `encoding`
        iou=False,        # S13
        background=False, # S6: background under an overlap of 0.4
        batch=False,      # S7: classes are learned from all images of the batch, not from the last
        normalise=False,  # S9: both losses divided by the batch's positive anchors
        flow=False,       # S17: gradient through the focal weight
        band=False,       # between 0.4 and 0.5 an anchor is neither an object's nor background
    ):
        super().__init__()
        self.__dict__['model'] = model
        self.iou,self.background,self.batch,self.normalise,self.flow,self.band = iou,background,batch,normalise,flow,band

    def match(self, boxes, labels, difficult):
        "Class `[B,A]` (-1: left out), object `[B,A]`, and whether the box is learned `[B,A]`"
        a = self.model.anchors
        if self.background:
            target,idx = match_anchors(a, boxes, labels, difficult, pos=0.5 if self.band else 0.4, neg=0.4)
            return target, idx, target>0
        target,idx = labels.new_full((len(labels),len(a)), -1),labels.new_zeros(len(labels),len(a))
        near = idx>0
        for i,(b,l) in enumerate(zip(boxes, labels)):
            real = (l>0).nonzero()[:,0]
            if not len(real): continue                   # what S15 does to an image without objects
            target[i],j,near[i] = seed_match(a, b[real], l[real], box_iou if self.iou else seed_iou)
            idx[i] = real[j]
        return target, idx, near

    def forward(self, pred, boxes, labels, difficult=None, reduction=None):
        logits,offsets = (o.as_subclass(Tensor).float() for o in pred)
        boxes,labels   = boxes.as_subclass(Tensor),labels.as_subclass(Tensor).long()
        target,idx,near = self.match(boxes, labels, difficult)
        cls = class_loss(logits, target, detach_weight=not self.flow).sum(1)    # [B], α 0.25 and γ 1 as in the seed
        i,a = near.nonzero(as_tuple=True)
        m   = self.model
        far = BoxCoder(m.encoding).decode(offsets[i,a], m.anchors[a], m.cells[a]) - boxes[i,idx[i,a]]
        box = offsets.new_zeros(len(logits)).index_add(0, i, far.abs().sum(1))  # [B]
        if self.normalise: return (cls.sum()+box.sum())/max(1, len(i))
        box = box/(4*near.sum(1).clamp(min=1))
        cls = cls/(logits.shape[-1]-1)
        return box.sum() + (cls.sum() if self.batch else cls[-1])

    def activation(self, pred): return pred
    def decodes(self, pred): return pred

# ---- from activations to what is drawn

def seed_detections(
    boxes,       # [A,4] xyxy of one image
    scores,      # [A,K], 0-1, no background
    label=False, # S4 cured: each box has a score of its own
    score=0.11,  # the seed's thresholds
    overlap=0.5,
    top_k=20,    # a class
):               # boxes [n,4], labels [n], scores [n]
    "S3 and S4: the scores are in the anchors' order, the boxes best first, so each box has another's; and all boxes of a class are drawn with the last"
    found = []
    for c,s in enumerate(scores.T):
        ok = s>score
        b,s = boxes[ok],s[ok]
        keep = nms(b, s, overlap)[:top_k]
        said = s[:len(keep)] if label else s[len(keep)-1:len(keep)].expand(len(keep))
        found.append((b[keep], torch.full_like(keep, c+1), said))
    return tuple(torch.cat(o) for o in zip(*found))
