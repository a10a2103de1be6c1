"""One training of an Ultralytics YOLO from its yaml with its own recipe, and what it finds. `accuracy.py` writes the job and runs this file by a python
that has Ultralytics. That package is AGPL: it is installed for this benchmark alone, and nothing else here imports it.

    runs/peers/bin/python benchmarks/peer_yolo.py runs/accuracy/yolo11n/job.json
"""
import json, sys, time
from pathlib import Path

def count(model, log):
    "Count images, and take the time from the first step to the last: without set-up and the final validation"
    def start(t): log.update(images=0, start=time.perf_counter())
    def step(t): log['images'] += t.batch_size
    def end(t): log['seconds'] = time.perf_counter()-log['start']
    for event,f in dict(on_train_start=start, on_train_batch_start=step, on_train_epoch_end=end).items(): model.add_callback(event, f)

def found(model, files, names, job):
    "COCO's result list: everything above the score, suppressed by Ultralytics' own code, in original pixels"
    rows = []
    for i,f in enumerate(files):
        r = model.predict(f, imgsz=job['size'], conf=job['score'], iou=job['iou'], max_det=job['max_per_image'], verbose=False)[0].boxes
        for (x1,y1,x2,y2),s,c in zip(r.xyxy.tolist(), r.conf.tolist(), r.cls.tolist()):
            rows.append(dict(image_id=i, file_name=Path(f).name, category_name=names[int(c)], category_id=int(c)+1, bbox=[x1,y1,x2-x1,y2-y1], score=s))
    return rows

def is_faster(model, job):
    "Are passes through the network and back faster in bfloat16 than in float32? The third of each counts"
    import torch
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    net,took = model.model.train().to(device),{}
    x = torch.rand(job['bs'], 3, job['size'], job['size'], device=device)
    def tensors(o): return [o] if torch.is_tensor(o) else [t for i in (o.values() if isinstance(o, dict) else o) for t in tensors(i)]
    for bf16 in (False, True):
        for _ in range(3):
            start = time.perf_counter()
            with torch.autocast(device, torch.bfloat16, enabled=bf16): out = net(x)
            sum(t.float().sum() for t in tensors(out) if t.requires_grad).backward()
            if device == 'cuda': torch.cuda.synchronize()
            took[bf16] = time.perf_counter()-start
    return took[True] < took[False]

def cpu_bf16():
    "Ultralytics refuses bfloat16 without CUDA: its trainer gets PyTorch's own autocast for a processor"
    import torch
    from ultralytics.engine import trainer
    trainer.autocast = lambda enabled, device='cpu': torch.autocast('cpu', torch.bfloat16)

def main(job):
    import torch
    threads = torch.get_num_threads()
    from ultralytics import YOLO, __version__
    from ultralytics.utils import torch_utils
    torch_utils.NUM_THREADS = threads   # as many as everybody has; by itself it leaves a core idle, half of a two-core machine
    out,log = Path(job['out']),{}
    bf16  = job['bf16'] and is_faster(YOLO(job['model']), job)
    cuda  = torch.cuda.is_available()
    if bf16 and not cuda: cpu_bf16()
    model = YOLO(job['model'])
    count(model, log)
    length = dict(time=job['seconds']/3600) if job['seconds'] else dict(epochs=job['epochs'])
    model.train(data=job['data'], imgsz=job['size'], batch=job['bs'], seed=job['seed'], amp='bf16' if bf16 and cuda else False, cache='ram', pretrained=False, val=False, plots=False,
                project=str(out), name='run', exist_ok=True, verbose=False, **length)
    last = YOLO(out/'run/weights/last.pt')
    for split,files in job['files'].items(): (out/f'{split}.json').write_text(json.dumps(found(last, files, job['names'], job)))
    log.pop('start')
    (out/'log.json').write_text(json.dumps(dict(log, version=__version__, precision='bf16' if bf16 else 'float32')))

if __name__ == '__main__': main(json.loads(Path(sys.argv[1]).read_text()))
