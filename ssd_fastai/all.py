"Everything in one import, as `fastai.vision.all`: that module's names and every public name of this package."
from fastai.vision.all import *

from .boxes import *
from .anchors import *
from .match import *
from .losses import *
from .nms import *
from .metrics import *
from .synth import *
from .readers import *
from .data import *
from .doctor import *
from .head import *
from .detector import *
from .learner import *
from .interpret import *
from .export import *
