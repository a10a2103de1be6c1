#!/usr/bin/env bash
# Everything that CI asks for. Arguments go to nbdev-test (`--flags slow` runs the slow cells too).
set -euo pipefail
cd "$(dirname "$0")/.."

echo '== exported modules, clean notebooks and README are current'
before=$(git status --porcelain; git diff | cksum)
tools/sync.sh
after=$(git status --porcelain; git diff | cksum)
if [ "$before" != "$after" ]; then
  git diff --stat
  echo 'error: generated files were not current; they are now: look at them and commit them' >&2
  exit 1
fi

# two notebooks at a time on two cores: threads of their own would only wait for each other
export OMP_NUM_THREADS=1

echo '== notebooks'
# each in a process of its own, as a Jupyter kernel is: what one imports must not help or harm the next
printf '%s\n' nbs/[!_]*.ipynb | xargs -P 2 -I {} nbdev-test {} --n-workers 0 --timing "$@"

echo '== short notebooks in a Jupyter kernel'
# as a reader runs them: with a display, and in the kernel that nbdev-test does without
printf '%s\n' nbs/0[0-6]_*.ipynb nbs/10_*.ipynb nbs/50_*.ipynb | env -u MPLBACKEND xargs -P 2 -I {} \
  jupyter nbconvert --to notebook --execute --log-level ERROR --output-dir "$(mktemp -d)" {}

echo '== tests'
python -m pytest -q tests
