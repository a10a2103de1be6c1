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

# chapters 0 to 2 as a reader runs them: in a Jupyter kernel, with a display
kernel='^nbs/([012]|30_)'
echo '== notebooks of chapters 0 to 2 in a Jupyter kernel'
printf '%s\n' nbs/[!_]*.ipynb | grep -E "$kernel" | env -u MPLBACKEND xargs -P 2 -I {} \
  jupyter nbconvert --to notebook --execute --log-level ERROR --output-dir "$(mktemp -d)" {}

echo '== the others by nbdev'
# each in a process of its own: what one imports must not help or harm the next
printf '%s\n' nbs/[!_]*.ipynb | grep -vE "$kernel" | xargs -P 2 -I {} nbdev-test {} --n-workers 0 --timing "$@"

echo '== tests'
# two files at a time: a file keeps its server and its trained models to itself
python -m pytest -q -n 2 --dist loadfile --durations=10 tests
