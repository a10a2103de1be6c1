"Reads every fact about the package from settings.ini, so that nothing is written twice."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

here   = Path(__file__).parent
parser = ConfigParser(delimiters=['='], interpolation=None)
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']

words  = lambda key: cfg[key].split()
extras = {k: words(f'{k}_requirements') for k in ('lite', 'export', 'distributed', 'app', 'video')}
extras['dev'] = words('dev_requirements') + [r for reqs in extras.values() for r in reqs]

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=words('keywords'),
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license=cfg['license'],
    python_requires=f">={cfg['min_python']}", packages=find_packages(include=[cfg['lib_path']]),
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    classifiers=[f"Development Status :: {cfg['status']}", f"Intended Audience :: {cfg['audience']}",
                 'Programming Language :: Python :: 3'],
    install_requires=words('requirements'), extras_require=extras, zip_safe=False,
    entry_points={'console_scripts': [o.strip() for o in cfg['console_scripts'].splitlines() if o.strip()],
                  'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
)
