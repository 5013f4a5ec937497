#!/usr/bin/env bash
# Run the tests with the lowest versions that pyproject.toml admits, or with the newest that pip finds, in an environment
# of their own: .venv-lowest or .venv-newest. With another torch than a CPU's, 5 GB of CUDA come along.
set -euo pipefail

versions=${1:-}
case $versions in
    lowest | newest) shift ;;
    *)
        echo "usage: scripts/test_versions.sh lowest|newest [arguments of pytest]" >&2
        exit 2
        ;;
esac
SYMDIFF_VENV=${SYMDIFF_VENV:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv-$versions}
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# The lowest versions have wheels for the lowest Python alone.
[ "$versions" = newest ] || PYTHON=${PYTHON:-python3.$FIRST}
find_python
CONSTRAINTS=$(mktemp)
trap 'rm -f "$CONSTRAINTS"' EXIT
if [ "$versions" = lowest ]; then
    "$BASE_PYTHON" -c 'import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
for wanted in [project["dependencies"], *project["optional-dependencies"].values()]:
    print(*(line.replace(">=", "==") for line in wanted), sep="\n")' >"$CONSTRAINTS"
else
    date +'# %F' >"$CONSTRAINTS" # a new day may have newer ones
    export PIP_UPGRADE=1 PIP_UPGRADE_STRATEGY=eager
fi
if ! try_edm; then
    shout "EDM CANNOT BE HAD: THE TESTS THAT NEED IT WILL BE SKIPPED." "$EDM_FAULT"
fi
install data posebusters docs test
say "$("$VENV_PYTHON" --version), $("$VENV_PYTHON" -m pip freeze --exclude-editable | paste -s -d ' ' -)"
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$VENV_PYTHON" -m pytest -n auto --dist worksteal "$@"
