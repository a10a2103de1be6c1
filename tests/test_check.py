"`ssd-check` as a process: exit codes, output, the JSON file."
import json, shutil, subprocess, sys
import pytest

CHECK = 'from ssd_fastai.cli import ssd_check; ssd_check()'

def check(*args, cwd):
    res = subprocess.run([sys.executable, '-c', CHECK, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert 'Traceback' not in res.stderr, res.stderr
    return res

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A drawn set, and a copy with three faults"
    from ssd_fastai.synth import synth_voc
    path = tmp_path_factory.mktemp('check')
    synth_voc(path/'clean', n=40, seed=5, n_classes=2)
    shutil.copytree(path/'clean', path/'sick')
    xml = path/'sick/Annotations/000001.xml'
    text = xml.read_text()
    i,j = text.index('<xmax>')+6,text.index('</xmax>')
    xml.write_text(text[:i] + '1' + text[j:])                                                       # xmax 1: inverted
    shutil.copy(path/'sick/JPEGImages/000002.jpg', path/'sick/JPEGImages/000030.jpg')               # train into val
    shutil.copy(path/'sick/Annotations/000002.xml', path/'sick/Annotations/000030.xml')
    (path/'sick/JPEGImages/000003.jpg').write_bytes((path/'sick/JPEGImages/000003.jpg').read_bytes()[:2000])
    return path

def test_clean_data(folder):
    res = check('clean', '--size', '128', '--json', 'clean.json', cwd=folder)
    assert res.returncode == 0, res.stdout
    d = json.loads((folder/'clean.json').read_text())
    assert d['ok'] and not [o for o in d['problems'] if o['severity'] == 'harms'] and d['size'] == [128, 128]
    assert [d['splits'][k]['images'] for k in ('train', 'val')] == [28, 6]

def test_faults(folder):
    res = check('sick', '--size', '96x128', '--json', 'sick.json', '--draw', 'sick.png', cwd=folder)
    assert res.returncode == 1, res.stdout + res.stderr
    d = json.loads((folder/'sick.json').read_text())
    found = {(o['kind'], o['file'], o['object']) for o in d['problems'] if o['severity'] == 'harms'}
    assert found == {('inverted box', 'Annotations/000001.xml', 1), ('same image in two splits', 'JPEGImages/000030.jpg', None),
                     ('unreadable image', 'JPEGImages/000003.jpg', None)}
    assert not d['ok'] and all(o['reason'] and o['cure'] for o in d['problems'])
    assert all(name in res.stdout for _,name,_ in found) and '3 findings would harm training' in res.stdout
    assert (folder/'sick.png').stat().st_size > 10_000 and not list(folder.glob('*.part'))

@pytest.mark.parametrize('args,word', [(['nowhere'], 'nowhere'), (['clean', '--valid', 'night'], 'night'), (['clean', '--size', 'big'], '--size big'),
                                       (['clean/JPEGImages', '--train', 'no.json', '--valid', 'no2.json'], 'no.json')])
def test_nothing_to_check(folder, args, word):
    res = check(*args, cwd=folder)
    assert res.returncode == 2 and word in res.stderr and len(res.stderr.strip().splitlines()) == 1
