#!/usr/bin/env bash
# Ask pip, for every Python that pyproject.toml allows and the one on either side, whether all packages can be had in
# the versions of constraints.txt. Nothing is installed; pip reads the index, so a network is needed.
set -euo pipefail

# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
find_python

status=0
for ((minor = FIRST - 1; minor <= BEYOND; minor++)); do
    # A Python of its own also judges what its packages want on it alone; else another's pip asks in its name.
    python=python3.$minor
    "$python" -m pip --version >/dev/null 2>&1 || python=$BASE_PYTHON
    answer=$("$python" -m pip install --dry-run --ignore-installed --target "${TMPDIR:-/tmp}/never" \
        --only-binary=:all: --python-version "3.$minor" --disable-pip-version-check -c constraints.txt \
        '.[data,posebusters,docs,test]' 2>&1) && can=1 || can=
    answer=$(printf '%s\n' "$answer" | grep -E '^(Would install|ERROR: )' | head -n 1 || :)
    say "Python 3.$minor, asked by $("$python" --version): ${answer:-no answer, is there a network?}"
    if ((minor < FIRST || minor >= BEYOND)); then
        [ -z "$can" ] || say "Python 3.$minor can be had too: pyproject.toml may allow it"
    elif [ -z "$can" ]; then
        status=1
    fi
done
exit $status
