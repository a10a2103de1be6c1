"SSD object detection for fastai."
from importlib.metadata import version, PackageNotFoundError

try: __version__ = version('ssd_fastai')
except PackageNotFoundError: __version__ = '0+unknown'  # imported from a checkout that is not installed
