"""The post that this package comes from, mistake for mistake: the lower rungs of `ladder.py` are made of it.

`nbs/82_post.ipynb` explains S1 to S17. Here are those that change a result on a CPU. Left out are:
- S5: the value is computed and never used.
- S8: it cannot run without a GPU.
- S12: there is no metric to reproduce.
- S14: it is in an earlier post; this one says that it leaves the step out, and its anchors lie in -1 to 1.
- S15: an error counts as a loss of 0. What is left of it: an image without objects trains nothing.
"""
import torch
from torch import nn, Tensor
from torchvision.ops import nms

from ssd_fastai.anchors import AnchorRecipe
from ssd_fastai.boxes import box_iou, to_xyxy
from ssd_fastai.classic import CLASSIC_THRESHOLDS, OutConv, detached_focal_weight
from ssd_fastai.head import FPNHead
from ssd_fastai.losses import class_loss, focal_weight
from ssd_fastai.match import match_anchors

# ---- the head

def post_flatten(x, k):
    "S1: `[B,k*n,H,W]` to `[B,H*W*k,n]` with shapes slow and cells fast; the anchors have cells slow and shapes fast"
    bs,f = x.shape[:2]
    return x.reshape(bs, f//k, -1).permute(0,2,1)

class PostOutConv(OutConv):
    "The post's output layer (S1)"
    def forward(self, x): return [post_flatten(o(x), self.k) for o in (self.oconv1,self.oconv2)]

class PostFPNHead(FPNHead):
    "S1 in the default head"
    def outs(self, maps): return tuple(torch.cat([post_flatten(f(o), self.k) for o in maps], 1) for f in (self.classes,self.boxes))

class PostRecipe(AnchorRecipe):
    "S2: x slow and y fast, as for fastai v1's (y,x) boxes; feature maps have y slow and x fast"
    def make(self, grids):
        turn = lambda o,hw: o.view(*hw, self.k, -1).transpose(0,1).reshape(len(o), -1)
        n    = [h*w*self.k for h,w in grids]
        return tuple(torch.cat([turn(p,hw) for p,hw in zip(o.split(n), grids)]) for o in super().make(grids))

# ---- the loss

def post_iou(a, b):
    "S13: minimum and maximum exchanged, so disjoint boxes `[N,4]`, `[M,4]` overlap and identical ones do not"
    gap   = torch.maximum(a[:,None,:2], b[None,:,:2]) - torch.minimum(a[:,None,2:], b[None,:,2:])
    inter = gap.clamp(min=0).prod(-1)
    area  = lambda o: (o[:,2:]-o[:,:2]).prod(1)
    return inter/(area(a)[:,None]+area(b)-inter)

def post_match(anchors, boxes, labels, iou):
    "S6: for each anchor of one image (class, object, whether its box is trained): the class of its best object, always"
    over = iou(boxes, to_xyxy(anchors))                  # [M,A]
    best,idx = over.max(0)
    for i,a in enumerate(over.max(1).indices.tolist()): best[a],idx[a] = 1.99,i
    return labels[idx], idx, best>0.4

class PostLoss(nn.Module):
    "The post's loss; each argument cures one mistake"
    def __init__(self,
        model,            # has `anchors`, `cells` and `coder`
        iou=False,        # S13: intersection over union
        background=False, # S6: anchors with an IoU below 0.4 are background
        batch=False,      # S7: the class loss of all images of the batch, not of the last one
        normalise=False,  # S9: both losses divided by the positive anchors of the batch
        flow=False,       # S17: gradient through the focal weight
        band=False,       # anchors with an IoU between 0.4 and 0.5 are ignored
    ):
        super().__init__()
        self.__dict__['model'] = model
        self.iou,self.background,self.batch,self.normalise,self.flow,self.band = iou,background,batch,normalise,flow,band

    def match(self, boxes, labels, difficult):
        "Class `[B,A]` (-1: ignored), object `[B,A]`, and whether the box is trained `[B,A]`"
        a = self.model.anchors
        if self.background:
            target,idx = match_anchors(a, boxes, labels, difficult, pos=0.5 if self.band else 0.4, neg=0.4)
            return target, idx, target>0
        target,idx = labels.new_full((len(labels),len(a)), -1),labels.new_zeros(len(labels),len(a))
        near = idx>0
        for i,(b,l) in enumerate(zip(boxes, labels)):
            real = (l>0).nonzero()[:,0]
            if not len(real): continue # S15: an image without objects trains nothing
            target[i],j,near[i] = post_match(a, b[real], l[real], box_iou if self.iou else post_iou)
            idx[i] = real[j]
        return target, idx, near

    def forward(self, pred, boxes, labels, difficult=None, reduction=None):
        logits,offsets = (o.as_subclass(Tensor).float() for o in pred)
        boxes,labels   = boxes.as_subclass(Tensor),labels.as_subclass(Tensor).long()
        target,idx,near = self.match(boxes, labels, difficult)
        cls = class_loss(logits, target, focal=focal_weight if self.flow else detached_focal_weight).sum(1) # [B]
        i,a = near.nonzero(as_tuple=True)
        m   = self.model
        far = m.coder.decode(offsets[i,a], m.anchors[a], m.cells[a]) - boxes[i,idx[i,a]]
        box = offsets.new_zeros(len(logits)).index_add(0, i, far.abs().sum(1))  # [B]
        if self.normalise: return (cls.sum()+box.sum())/max(1, len(i))
        box = box/(4*near.sum(1).clamp(min=1))
        cls = cls/(logits.shape[-1]-1)
        return box.sum() + (cls.sum() if self.batch else cls[-1])

    def activation(self, pred): return pred
    def decodes(self, pred): return pred

# ---- from activations to what is drawn

def post_detections(
    boxes,       # [A,4] xyxy of one image
    scores,      # [A,K], 0-1, no background
    label=False, # S4 cured: each box has a score of its own
    thresholds=CLASSIC_THRESHOLDS,
):               # boxes [n,4], labels [n], scores [n]
    "S3 and S4: scores stay in the anchors' order while boxes are sorted; and one score is drawn on all boxes of a class"
    found = []
    for c,s in enumerate(scores.T):
        ok = thresholds.passes(s)
        b,s = boxes[ok],s[ok]
        keep = nms(b, s, thresholds.iou)[:thresholds.max_per_class]
        said = s[:len(keep)] if label else s[len(keep)-1:len(keep)].expand(len(keep))
        found.append((b[keep], torch.full_like(keep, c+1), said))
    return tuple(torch.cat(o) for o in zip(*found))
