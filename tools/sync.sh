#!/usr/bin/env bash
# Bring what is made from the notebooks up to date: modules, clean notebooks, README, the drawing and the table of CONTRIBUTING.
set -euo pipefail
cd "$(dirname "$0")/.."
nbdev-export
nbdev-clean
python tools/readme.py
python tools/rooms.py
