"SSD object detection for fastai."
def __getattr__(name):
    "`__version__`, looked up when it is asked for: that takes longer than a script's --help"
    if name != '__version__': raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib.metadata import version, PackageNotFoundError
    try: return version('ssd_fastai')
    except PackageNotFoundError: return '0+unknown'  # imported from a checkout that is not installed
