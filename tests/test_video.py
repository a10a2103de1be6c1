"Films through a real detector: what goes in comes out, with boxes, counted, and a damaged film says so."
import csv, sys
from fractions import Fraction
from pathlib import Path

import numpy as np, pytest
from PIL import Image

from ssd_fastai.files import load_detector
from ssd_fastai.video import DamagedVideo, VIDEO_SUFFIXES, detect_video, paint_detections, video_frames

av = pytest.importorskip('av', reason='films need PyAV: pip install av')
pytest.importorskip('timm', reason='the fixed detector has a timm body: pip install timm')
GOLDEN = Path(__file__).resolve().parent/'golden'

@pytest.fixture(scope='module')
def det(): return load_detector(GOLDEN/'detector.safetensors')

@pytest.fixture(scope='module')
def stills():
    "Pictures in which the detector finds something, in one size"
    files = [GOLDEN/'images'/f'{o}.png' for o in ('alpha','odd','palette','tall','wide')]
    return [Image.open(o).convert('RGB').resize((192,160)) for o in files]

def film(path, stills, n=20, codec='libx264', fps=10, turned=0, size=(192,160), times=None, **kwargs):
    with av.open(path, 'w', **kwargs) as f:
        out = f.add_stream(codec, rate=Fraction(fps))
        out.width,out.height,out.pix_fmt = *size,'yuv420p'
        if times: out.codec_context.time_base = Fraction(1, 1000)
        if turned: out.set_display_rotation(turned)
        for i in range(n):
            frame = av.VideoFrame.from_image(stills[i%len(stills)].resize(size))
            if times: frame.pts,frame.time_base = times[i],Fraction(1, 1000)
            f.mux(out.encode(frame))
        f.mux(out.encode())
    return path

def quiet(line): assert '\n' not in line and '\r' not in line

@pytest.mark.parametrize('name,codec', [('a.mp4','libx264'), ('a.mov','libx264'), ('a.mkv','libx264'), ('a.avi','mpeg4'),
                                        ('a.webm','libvpx'), ('a.ts','mpeg2video'), ('a.mpg','mpeg2video')])
def test_containers(tmp_path, stills, name, codec):
    try: av.Codec(codec, 'w')
    except ValueError: pytest.skip(f'this PyAV has no {codec}')
    fps = 25 if codec=='mpeg2video' else 10
    got = list(video_frames(film(tmp_path/name, stills, codec=codec, fps=fps)))
    assert Path(name).suffix in VIDEO_SUFFIXES and len(got)==20 and {o.size for o in got}=={(192,160)}
    assert np.allclose([o.info['seconds'] for o in got], np.arange(20)/fps, atol=0.02)
    assert np.abs(np.asarray(got[0], int)-np.asarray(stills[0], int)).mean() < 12

def test_a_frame_is_detected_as_its_picture(tmp_path, det, stills):
    "detect on the frames' iterator, on each frame, and in the table: the same"
    src    = film(tmp_path/'a.mp4', stills)
    frames = list(video_frames(src))
    want   = det.detect(frames)
    assert sum(map(len, want)) >= 10
    assert [d.scores.tolist() for d in det.detect(video_frames(src), bs=3)] == \
           [d.scores.tolist() for d in det.detect(frames, bs=3)]
    res = detect_video(det, src, csv=tmp_path/'a.csv', say=quiet)
    with open(tmp_path/'a.csv', encoding='utf-8', newline='') as f: rows = list(csv.DictReader(f))
    assert list(rows[0])==['frame','seconds',*det.vocab[1:]]
    assert [[int(r[k]) for k in det.vocab[1:]] for r in rows]==[[d.names.count(k) for k in det.vocab[1:]] for d in want]
    assert res['frames']==20 and sum(res['objects'].values())==sum(map(len, want))
    assert [int(r['frame']) for r in rows]==list(range(1, 21)) and rows[10]['seconds']=='1.000'

@pytest.mark.parametrize('size', [(192,160), (94,62)])
@pytest.mark.parametrize('turned', [0, 90, 180, -90])
def test_film_out(tmp_path, det, stills, size, turned):
    "As many frames as long, upright, the boxes on them"
    src = film(tmp_path/'a.mp4', stills, n=8, turned=turned, size=size)
    detect_video(det, src, video=tmp_path/'b.mp4', draw=tmp_path/'pics', say=quiet)
    a,b  = list(video_frames(src)),list(video_frames(tmp_path/'b.mp4'))
    want = [paint_detections(o, d) for o,d in zip(a, det.detect(a, bs=4))]
    assert len(a)==len(b)==8 and a[0].size==b[0].size==(size if turned in (0,180) else size[::-1])
    assert np.allclose([o.info['seconds'] for o in b], [o.info['seconds'] for o in a], atol=2e-3)
    assert abs(b[0].info['fps']-10) < 0.1
    for x,y in zip(b, want): assert np.abs(np.asarray(x.convert('L'), int)-np.asarray(y.convert('L'), int)).mean() < 8
    pics = sorted((tmp_path/'pics').iterdir())
    assert [o.name for o in pics]==[f'a-{i:06}.jpg' for i in range(1, 9)] and Image.open(pics[0]).size==a[0].size

def test_a_phone_film_of_changing_speed(tmp_path, det, stills):
    times = [0, 33, 70, 200, 230, 900]
    src   = film(tmp_path/'a.mp4', stills, n=6, times=times)
    detect_video(det, src, video=tmp_path/'b.mp4', say=quiet)
    assert np.allclose([o.info['seconds']*1000 for o in video_frames(tmp_path/'b.mp4')], times, atol=2)

def test_memory_stays_flat(tmp_path, stills):
    "Frames are decoded when they are asked for: of 300 not more than a few exist at once"
    import gc
    src  = film(tmp_path/'a.mp4', stills, n=300)
    most = 0
    for i,_ in enumerate(video_frames(src)):
        if i%60==59: most = max(most, sum(isinstance(o, Image.Image) and o.size==(192,160) for o in gc.get_objects()))
    assert i==299 and most < 12+len(stills)

def test_damaged_films(tmp_path, det, stills):
    raw = film(tmp_path/'a.mp4', stills, n=60, options=dict(movflags='faststart')).read_bytes()
    (tmp_path/'cut.mp4').write_bytes(raw[:len(raw)*2//3])
    with pytest.raises(DamagedVideo, match='damaged, .*could be read') as e:
        detect_video(det, tmp_path/'cut.mp4', tmp_path/'b.mp4', csv=tmp_path/'b.csv', say=quiet)
    assert '\n' not in str(e.value)
    n = len(list(video_frames(tmp_path/'b.mp4')))
    assert 0<n<60 and len((tmp_path/'b.csv').read_text().splitlines())==n+1

@pytest.mark.parametrize('raw', [b'', b'hello', b'\x00'*5000, b'ffconcat version 1.0\nfile a.mp4\n',
                                 b'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\na.mp4\n#EXT-X-ENDLIST\n'], ids=range(5))
def test_what_is_no_film_is_one_line(tmp_path, det, stills, raw):
    film(tmp_path/'a.mp4', stills, n=3)
    (tmp_path/'x.mp4').write_bytes(raw)
    with pytest.raises(ValueError, match='x.mp4: not a film') as e: detect_video(det, tmp_path/'x.mp4', tmp_path/'b.mp4')
    assert '\n' not in str(e.value) and sorted(o.name for o in tmp_path.iterdir())==['a.mp4','x.mp4']

def test_other_errors_are_one_line(tmp_path, det, stills, monkeypatch):
    src = film(tmp_path/'a.mp4', stills, n=3)
    for kwargs,say in ((dict(video=src), 'give another name'), (dict(video=tmp_path/'b.avi'), '.mp4')):
        with pytest.raises(ValueError, match=say): detect_video(det, src, **kwargs, say=quiet)
    with pytest.raises(ValueError, match='no such file'): detect_video(det, tmp_path/'none.mp4')
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(ValueError, match='pip install av'): detect_video(det, src)
