#!/usr/bin/env bash
# Set up from nothing, then ruff (rules and format), mypy and pytest; arguments are pytest's. Without EDM the tests that
# need it are skipped.
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/scripts/setup.sh"

case ${1:-} in
    -h | --help)
        echo "usage: ./run_tests.sh [arguments of pytest]"
        echo "environment: EDM_REPO, PYTHON, SYMDIFF_VENV as for ./run_qm9.sh"
        exit 0
        ;;
esac
find_python
if ! try_edm; then
    shout "EDM CANNOT BE HAD: THE TESTS THAT NEED IT WILL BE SKIPPED." "$EDM_FAULT"
fi
install data posebusters docs test

status=0
"$VENV_PYTHON" -m ruff check . || status=$?
"$VENV_PYTHON" -m ruff format --check . || status=$?
"$VENV_PYTHON" -m mypy || status=$?
# One process a core, each with one thread; one that is done takes tests of another's. `-n 0` is for a debugger.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$VENV_PYTHON" -m pytest -n auto --dist worksteal "$@" || exit $?
[ $status -eq 0 ] || die $status "the tests passed, but ruff or mypy found what stands above them"
