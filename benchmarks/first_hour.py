"""The first hour, walked with the README's lines alone: BCCD as YOLO text, as COCO, as LabelMe, as a table.

    python benchmarks/first_hour.py      # results into benchmarks/results/first_hour.json

Each layout is checked, trained, evaluated on the test split and used on a folder; then the page is opened on its model, an image goes up, and the results
come down. A first training gets two minutes. Then each layout is trained for as many epochs as that one had, so that all four must give the same AP, to the
digit.
"""
import csv, json, os, re, shlex, shutil, socket, subprocess, sys, time
from pathlib import Path

from bccd import DATA, ROOT, machine, write

WORK    = ROOT/'runs'/'first_hour'
RESULTS = ROOT/'benchmarks'/'results'/'first_hour.json'
SPLITS  = 'train','val','test'

def as_yolo(records, at):
    "data.yaml, images/SPLIT, labels/SPLIT"
    names = sorted({o for r in records['train'] for o in r.names})
    for s,recs in records.items():
        for r in recs:
            for o in ('images','labels'): (at/o/s).mkdir(parents=True, exist_ok=True)
            shutil.copy(r.file, at/'images'/s)
            (at/'labels'/s/f'{r.file.stem}.txt').write_text(r.to_yolo(names))
    (at/'data.yaml').write_text('\n'.join([*(f'{s}: images/{s}' for s in SPLITS), f'names: {json.dumps(names)}'])+'\n')

def as_coco(records, at):
    "As Roboflow writes it: a folder per split, with _annotations.coco.json in it"
    names = sorted({o for r in records['train'] for o in r.names})
    ids   = {o: i+1 for i,o in enumerate(names)}
    for s,recs in records.items():
        folder = at/{'val':'valid'}.get(s, s)
        folder.mkdir(parents=True)
        images,objs = [],[]
        for i,r in enumerate(recs):
            shutil.copy(r.file, folder)
            images.append(dict(id=i, file_name=r.file.name, height=r.size[0], width=r.size[1]))
            for n,(x1,y1,x2,y2) in zip(r.names, r.boxes.tolist()):
                objs.append(dict(id=len(objs)+1, image_id=i, category_id=ids[n], bbox=[x1,y1,x2-x1,y2-y1], area=(x2-x1)*(y2-y1), iscrowd=0))
        doc = dict(images=images, annotations=objs, categories=[dict(id=i, name=n) for n,i in ids.items()])
        (folder/'_annotations.coco.json').write_text(json.dumps(doc))

def as_labelme(records, at):
    "A folder per split, a JSON beside each image"
    for s,recs in records.items():
        (at/s).mkdir(parents=True)
        for r in recs:
            shutil.copy(r.file, at/s)
            (at/s/f'{r.file.stem}.json').write_text(r.to_labelme())

def as_table(records, at):
    "One CSV for all, a row per box, and a column that says the split"
    (at/'images').mkdir(parents=True)
    with open(at/'annotations.csv', 'w', newline='') as f:
        out = csv.writer(f)
        out.writerow('filename width height class xmin ymin xmax ymax split'.split())
        for s,recs in records.items():
            for r in recs:
                shutil.copy(r.file, at/'images')
                out.writerows([r.file.name, r.size[1], r.size[0], n, *b, s] for n,b in zip(r.names, r.boxes.tolist()))

LAYOUTS = dict(yolo=as_yolo, coco=as_coco, labelme=as_labelme, table=as_table)

def run(line):
    "A line of the README, in the folder of this walk: (its seconds, what it printed)"
    print('$', line, flush=True)
    start = time.time()
    p = subprocess.run(shlex.split(line), cwd=WORK, capture_output=True, text=True)
    if p.returncode: sys.exit(f'{line}: exit {p.returncode}\n{p.stdout[-2000:]}\n{p.stderr[-2000:]}')
    return round(time.time()-start, 1), p.stdout

def page(model, image):
    "Open the page of a model in Chromium, send an image up, bring the COCO JSON down: number of detections in it"
    sys.path.insert(0, str(ROOT/'tests'))
    from playwright.sync_api import sync_playwright
    from test_app import PLACES, QUIET, download, give
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    with subprocess.Popen(['ssd-app', model, '--port', str(port)], cwd=WORK, text=True, stdout=subprocess.PIPE, env={**os.environ, 'PYTHONUNBUFFERED':'1'}) as app:
        try:
            line = next(o for o in app.stdout if 'http://' in o)
            with sync_playwright() as p, p.chromium.launch(executable_path=next(filter(None, map(shutil.which, PLACES))), args=QUIET) as chrome:
                tab = chrome.new_context(accept_downloads=True).new_page()
                tab.goto(re.search(r'http://[\w.:]+', line)[0])
                tab.wait_for_selector('#drop input[type=file]', state='attached')
                give(tab, image)
                return len(json.loads(download(tab, 'coco')[1])['annotations'])
        finally: app.terminate()

def walk(name, epochs=None):
    "Check, train, evaluate, predict, open the page"
    length = f'--epochs {epochs}' if epochs else '--minutes 2'
    out,seconds = f'runs/{name}' if epochs else 'runs/two_minutes',{}
    seconds['check'],_ = run(f'ssd-check {name}')
    seconds['train'],_ = run(f'ssd-train {name} --arch tf_efficientnet_lite0 --size 256x320 {length} --out {out}')
    seconds['eval'],_  = run(f'ssd-eval {out}/model.safetensors {name} --split test --json {out}/test.json')
    seconds['predict'],_ = run(f'ssd-predict {out}/model.safetensors pictures --json {out}/found.json --draw {out}/drawn --yolo {out}/labels')
    test  = json.loads((WORK/out/'test.json').read_text())
    found = json.loads((WORK/out/'found.json').read_text())
    ran   = len((WORK/out/'history.csv').read_text().splitlines())-1
    start = time.time()
    down  = page(f'{out}/model.safetensors', next((WORK/'pictures').iterdir()))
    seconds['page'] = round(time.time()-start, 1)
    assert len(list((WORK/out/'drawn').iterdir())) == len(list((WORK/'pictures').iterdir()))
    return dict(epochs=ran, voc12=test['voc12'], coco=test['coco'], detections=len(found), page_detections=down, seconds=seconds)

if __name__ == '__main__':
    from ssd_fastai.formats import parse_voc # noqa: F401, gives records their formats
    from ssd_fastai.readers import read_split
    records = {s: read_split(DATA, s, verbose=False) for s in SPLITS}
    shutil.rmtree(WORK, ignore_errors=True)
    (WORK/'pictures').mkdir(parents=True)
    for r in records['test'][:20]: shutil.copy(r.file, WORK/'pictures')
    res = {}
    for name,put in LAYOUTS.items(): put(records, WORK/name)
    first = walk('yolo')
    print('two minutes:', first, flush=True)
    for name in LAYOUTS:
        res[name] = walk(name, first['epochs'])
        print(name, res[name], flush=True)
    same = {(o['voc12'], o['coco'], o['detections']) for o in res.values()}
    write(RESULTS, json.dumps(dict(two_minutes=first, layouts=res, same=len(same)==1, machine=machine()), indent=1) + '\n')
    if len(same) > 1: sys.exit(f'the layouts differ: {same}')
