#!/usr/bin/env bash
# Everything that CI asks for. `tools/test.sh 12_match` runs that notebook alone. Other arguments go to nbdev-test
# (`--flags slow` runs the slow cells too).
set -euo pipefail
cd "$(dirname "$0")/.."

# two notebooks at a time on two cores: threads of their own would only wait for each other
export OMP_NUM_THREADS=1

if [[ ${1:-} =~ ^[0-9] ]]; then
  nb=nbs/${1%.ipynb}.ipynb
  if [ ! -f "$nb" ]; then echo "error: no notebook $nb" >&2; exit 2; fi
  shift
  exec nbdev-test "$nb" --n-workers 0 --timing "$@"
fi

echo '== exported modules, clean notebooks, README and CONTRIBUTING are current'
before=$(git status --porcelain; git diff | cksum)
tools/sync.sh
after=$(git status --porcelain; git diff | cksum)
if [ "$before" != "$after" ]; then
  git diff --stat
  echo 'error: generated files were not current; they are now: look at them and commit them' >&2
  exit 1
fi

echo '== notebooks'
# each in a process of its own, as a Jupyter kernel is: what one imports must not help or harm the next
printf '%s\n' nbs/[!_]*.ipynb | xargs -P 2 -I {} nbdev-test {} --n-workers 0 --timing "$@"

echo '== short notebooks in a Jupyter kernel'
# as a reader runs them: with a display, and in the kernel that nbdev-test does without
printf '%s\n' nbs/0*.ipynb nbs/1*.ipynb nbs/2*.ipynb nbs/30_*.ipynb | env -u MPLBACKEND xargs -P 2 -I {} \
  jupyter nbconvert --to notebook --execute --log-level ERROR --output-dir "$(mktemp -d)" {}

echo '== tests'
# two files at a time: a file keeps its server and its trained models to itself
python -m pytest -q -n 2 --dist loadfile --durations=10 tests
