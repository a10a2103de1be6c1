"""Would another suppression find more with the same weights? The models that `accuracy.py` left in runs/accuracy, on their validation splits.

    python benchmarks/suppression.py   # results/suppression.json: AP, and the difference to suppression at IoU 0.5 by paired bootstrap over the images

`iou T` suppresses a box whose IoU with a better one is larger than T. `diou T` takes DIoU instead (Zheng et al. 2020), `gaussian S` multiplies its score by
exp(-IoU²/S) and `linear T` by 1-IoU where IoU is larger than T (soft-NMS, Bodla et al. 2017). `vote T` suppresses at 0.5 and then moves each box to the
mean of those of its class that overlap it with an IoU of at least T and score at least half of its score (box voting, Gidaris and Komodakis 2015), weighted by
score, in `vote² T` by its square, and in `vote T, S` by exp(-(1-IoU)²/S) as well (He et al. 2019). The test splits are not touched.
"""
import argparse, json
from functools import partial
from statistics import mean

from accuracy import EVAL, WORK, splits_of
from bccd import ROOT, machine, write

RESULTS = ROOT/'benchmarks'/'results'/'suppression.json'
SYSTEM,AGAINST = 'ours-lite0-imagenet','iou 0.5'

def hard(overlap, s, t):
    "Rows that are kept, highest score first, with their scores"
    import torch
    keep,left = [],torch.ones(len(s), dtype=torch.bool)
    for i in s.argsort(descending=True, stable=True).tolist():
        if not left[i]: continue
        keep.append(i)
        left &= overlap[i] <= t
    return keep, s[keep]

def soft(overlap, s, weight):
    "The same, where the scores of the others are multiplied by `weight(overlap)`"
    import torch
    now,keep,scores = s.clone(),[],[]
    for _ in range(len(s)):
        i = int(now.argmax())
        if now[i] <= EVAL['score']: break
        keep.append(i); scores.append(float(now[i]))
        now = now*weight(overlap[i])
        now[keep] = -1.
    return keep, torch.tensor(scores)

def ways():
    "What is tried: a function of (boxes [N,4], scores [N]) of one class for each name"
    import torch
    from torchvision.ops import box_iou, distance_box_iou
    res = {f'iou {t}': partial(lambda t, b, s: hard(box_iou(b, b), s, t), t) for t in (.4, .45, .5, .55, .6, .65, .7)}
    res.update({f'diou {t}': partial(lambda t, b, s: hard(distance_box_iou(b, b), s, t), t) for t in (.4, .5, .6)})
    res.update({f'gaussian {v}': partial(lambda v, b, s: soft(box_iou(b, b), s, lambda o: (-o*o/v).exp()), v) for v in (.2, .3, .5)})
    res.update({f'linear {t}': partial(lambda t, b, s: soft(box_iou(b, b), s, lambda o: torch.where(o>t, 1-o, 1.)), t) for t in (.3, .5)})
    res.update({f'vote{"²" if p==2 else ""} {t}': partial(vote, t=t, power=p) for p in (1,2) for t in (.5, .6, .65, .7, .8)})
    res.update({f'vote² {t}, {v}': partial(vote, t=t, power=2, sigma=v) for t in (.5, .65) for v in (.025, .05, .1)})
    return res

def vote(b, s, t, power, sigma=None):
    "The rows of suppression at IoU 0.5, their scores, and the mean of the boxes around each"
    import torch
    from torchvision.ops import box_iou
    overlap = box_iou(b, b)
    keep,best = hard(overlap, s, 0.5)
    o = overlap[keep]
    w = torch.where((o>=t) & (s[None] >= 0.5*best[:,None]), s**power, 0.)
    if sigma: w = w*(-(1-o)**2/sigma).exp()
    return keep, best, w@b/w.sum(1, keepdim=True)

def suppressed(d, way):
    "Detections after one of the `ways`, class by class"
    import torch
    from dataclasses import replace
    parts = [(torch.zeros(0, dtype=torch.long), torch.zeros(0), torch.zeros(0,4))]
    for c in d.labels.unique():
        rows = (d.labels==c).nonzero().flatten()
        keep,s,*moved = way(d.boxes[rows], d.scores[rows])
        parts.append((rows[keep], s, moved[0] if moved else d.boxes[rows[keep]]))
    rows,s,b = (torch.cat(o) for o in zip(*parts))
    best = s.argsort(descending=True, stable=True)[:EVAL['max_per_image']]
    best = best[s[best]>EVAL['score']]
    return replace(d, boxes=b[best], labels=d.labels[rows[best]], scores=s[best])

def f1_of(ev):
    "Mean over the classes of the best F1 at IoU 0.5: what one sees at a threshold, where AP also counts what has low scores"
    import numpy as np
    best = []
    for k in ev.rows:
        r,p,_ = (np.asarray(o) for o in ev.curve(k))
        if len(r): best.append(float((2*p*r/np.maximum(p+r, 1e-9)).max()))
    return mean(best)

def rows_of(model, data, budget, seed):
    "A row for each of the `ways`"
    from ssd_fastai.analysis import compare
    from ssd_fastai.files import load_detector
    from ssd_fastai.metrics import evaluate_detections
    val,det = splits_of(data)['val'],load_detector(model)
    det.model.vote = None   # here they vote below
    all_of = det.detect([o.file for o in val], score=EVAL['score']/2, iou=1., max_per_image=1500)   # half: of those that may vote
    evs = {k: evaluate_detections([suppressed(d, f) for d in all_of], val, det.vocab) for k,f in ways().items()}
    for k,e in evs.items():
        c = {o: compare(evs[AGAINST], e, o) for o in ('voc12', 'coco')}
        figures = dict(f1=f1_of(e), **{o: getattr(e, o) for o in c}, **{f'{o}_gain': [v.difference, *v.interval] for o,v in c.items()})
        yield dict(data=data, budget=budget, seed=seed, way=k, **{o: [round(x, 4) for x in v] if isinstance(v, list) else round(v, 4) for o,v in figures.items()})

def table(rows):
    "Markdown: mean gains over the models of each data set"
    sets,base = [*dict.fromkeys(o['data'] for o in rows)],{(o['data'],o['budget'],o['seed']): o for o in rows if o['way']==AGAINST}
    text = ['| gain in COCO AP, AP50, F1 | '+' | '.join(sets)+' | mean |', '|---'*(len(sets)+2)+'|']
    def gains(way, d): return [mean(o[f]-base[d,o['budget'],o['seed']][f] for o in rows if (o['way'],o['data'])==(way,d)) for f in ('coco', 'voc12', 'f1')]
    for way in dict.fromkeys(o['way'] for o in rows):
        g = [gains(way, d) for d in sets]
        g.append([mean(o) for o in zip(*g)])
        text.append(f'| {way} | '+' | '.join(', '.join(f'{x:+.3f}' for x in o) for o in g)+' |')
    return '\n'.join(text)

def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = []
    for model in sorted(WORK.glob(f'{SYSTEM}-*-*s-*/model.safetensors')):
        data,budget,seed = model.parent.name.removeprefix(f'{SYSTEM}-').split('-')
        rows += rows_of(model, data, budget, int(seed))
        print(model.parent.name, flush=True)
        write(RESULTS, '{"machine": '+json.dumps(machine())+', "rows": [\n'+',\n'.join(map(json.dumps, rows))+']}\n')   # a line per row
    print(table(rows))

if __name__ == '__main__': main()
