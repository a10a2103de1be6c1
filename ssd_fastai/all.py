"Everything in one import, as `fastai.vision.all`: that module's names and every public name of this package."
from importlib.util import find_spec

from fastai.vision.all import *

from .boxes import *
from .images import *
from .resize import *
from .augment import *
from .records import *
from .tiles import *
from .draw import *
from .formats import *
from .anchors import *
from .match import *
from .losses import *
from .nms import *
from .metrics import *
from .analysis import *
from .synth import *
from .readers import *
from .splits import *
from .data import *
from .doctor import *
from .head import *
from .classic import *
from .body import *
from .pretrained import *
from .model import *
from .alignment import *
from .detector import *
from .ceiling import *
from .callbacks import *
from .learner import *
from .interpret import *
from .files import *
from .onnx import *
from .video import *
if find_spec('accelerate'): from .distributed import *   # several processes need the extra `distributed`
