"""What the fast ways of using a model cost: AP on the validation splits of BCCD and NEU-DET, beside the plain network on all pixels.

    python benchmarks/precision.py      # into benchmarks/results/precision.json

A model for each set is trained for some epochs. Then the same images are evaluated with the plain network, with the one that `load_detector` prepares in
float32 and bfloat16, from JPEGs that are read at a fraction where they are much larger than the input, in ONNX Runtime, and quantised to int8.
"""
import json, time
from pathlib import Path

from bccd import ROOT, SETS_AT, machine, write

RESULTS = ROOT/'benchmarks'/'results'/'precision.json'
SETS    = dict(bccd=('bccd/BCCD', (256,320), 6), neu=('neu', (224,224), 2))

def model(data):
    "A trained model as a file, and records of train and val"
    from ssd_fastai.data import DetectionDataLoaders
    from ssd_fastai.readers import read_split
    from ssd_fastai.runs import train_run
    folder,size,epochs = SETS[data]
    train,valid = (read_split(SETS_AT/folder, o, verbose=False) for o in ('train','val'))
    out = ROOT/'runs'/'precision'/data
    if not (out/'model.safetensors').exists():
        train_run(lambda: DetectionDataLoaders.from_records(train, valid, size=size, verify=False), 'tf_efficientnet_lite0', out, epochs=epochs, weights='imagenet')
    return out/'model.safetensors', train, valid

def all_pixels(det, records):
    "Detections of the images with every pixel decoded, whatever the size of the input"
    from PIL import Image
    return det.detect([Image.open(r.file).convert('RGB') for r in records], score=0.01, iou=0.5, max_per_image=200)

def rows_of(data):
    from ssd_fastai.detector import Detector
    from ssd_fastai.files import load_detector
    from ssd_fastai.metrics import evaluate_detections
    from ssd_fastai.nms import EVALUATION_THRESHOLDS
    from ssd_fastai.onnx import export_onnx
    file,train,valid = model(data)
    dets = {o:load_detector(file, precision=o) for o in ('float32','bf16')}
    d = dets['float32']
    plain = Detector(d.model, d.vocab, d.size, d.method, d.thresholds)
    where = file.parent
    def row(name, f):
        start = time.perf_counter()
        ev = f()
        return dict(data=data, way=name, voc12=ev.voc12, coco=ev.coco, ms=1e3*(time.perf_counter()-start)/len(valid))
    of_pixels = lambda det: evaluate_detections(all_pixels(det, valid), valid, det.vocab, EVALUATION_THRESHOLDS)
    yield row('plain network, all pixels', lambda: of_pixels(plain))
    yield row('prepared network, all pixels', lambda: of_pixels(d))
    yield row('prepared network', lambda: d.evaluate(valid, progress=False))
    yield row('prepared network, bfloat16', lambda: dets['bf16'].evaluate(valid, progress=False))
    onnx = load_detector(export_onnx(d, where/'model.onnx'))
    yield row('ONNX Runtime', lambda: onnx.evaluate(valid, progress=False))
    try: path = export_onnx(d, where/'int8.onnx', int8=True, images=[r.file for r in train[:128]], records=valid)
    except ValueError as e:
        yield dict(data=data, way='ONNX Runtime, int8', refused=str(e))
        return
    int8 = load_detector(path)
    yield {**row('ONNX Runtime, int8', lambda: int8.evaluate(valid, progress=False)), 'bytes':[(where/o).stat().st_size for o in ('model.onnx','int8.onnx')],
           'export':{k:v for k,v in int8.info.items() if 'int8' in k}}

if __name__ == '__main__':
    rows = []
    for data in SETS:
        for o in rows_of(data):
            rows.append(o)
            print({k:v for k,v in o.items() if k!='export'}, flush=True)
    write(RESULTS, json.dumps(dict(rows=rows, machine=machine()), indent=1, default=str)+'\n')
