"""The rules of ``patches/``: one idea each, small, explained, and next to nothing of upstream quoted.

A patch is a header, then ``git diff -U1``. The header's first line is one sentence that says what the patch does, free
text may say why, and ``Upstream: path:lines[, path:lines]`` names what it changes at the pinned commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from repositories import git

from symdiff_plugin.edm import PATCHES, PINNED_SHA
from symdiff_plugin.edm.checkout import LEFT_OUT

SERIES = (PATCHES / "series").read_text().split()
MAX_CHANGED_LINES = 40
GOOD = """Say hello.

Upstream once said nothing.

Upstream: utils.py:2

diff --git a/utils.py b/utils.py
--- a/utils.py
+++ b/utils.py
@@ -1,3 +1,4 @@
 import os
-import wandb
+from symdiff_plugin import hooks
+from symdiff_plugin.hooks import wandb
 import sys
"""


def changed_lines(text: str) -> list[str]:
    return re.findall(r"^[+-](?![+-]{2} ).*$", text[text.index("diff --git ") :], re.MULTILINE)


def faults(text: str) -> Iterator[str]:
    """What is wrong with a patch, as far as it can be seen without EDM."""
    header, mark, diff = text.partition("diff --git ")
    if not re.match(r"\S.*\.\n\n", header):
        yield "the header does not begin with a sentence that says what the patch does"
    named = re.findall(r"([\w./-]+\.\w+):\d+", header.partition("\nUpstream: ")[2])
    if named != re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE):
        yield f"the header names {named} as upstream's files, the diff changes others"
    changed = changed_lines(text) if mark else []
    if not 0 < len(changed) <= MAX_CHANGED_LINES:
        yield f"{len(changed)} changed lines, not 1 to {MAX_CHANGED_LINES}: split it, or move logic into the plugin"
    for line in changed:
        if line.startswith("+") and line != line.rstrip():
            yield f"adds trailing whitespace: {line!r}"
        if re.search(r"\bsymdiff_plugin\b", line) and not re.match(
            r".\s*from symdiff_plugin(\.hooks import \w+| import hooks)$", line
        ):
            yield f"imports more of ours than hooks: {line}"


@pytest.mark.parametrize("name", SERIES)
def test_our_patches_keep_the_rules(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.patch", name)
    assert list(faults((PATCHES / name).read_text())) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("Say hello.", "say-hello", "not begin with a sentence"),
        ("Upstream: utils.py:2", "In utils.py", "names [] as"),
        ("Upstream: utils.py:2", "Upstream: main_qm9.py:2", "main_qm9.py"),
        ("import hooks\n", "import hooks \n", "trailing whitespace"),
        ("from symdiff_plugin import hooks", "from symdiff_plugin import presets", "more of ours than hooks"),
        ("from symdiff_plugin.hooks", "from symdiff_plugin.model.dynamics", "more of ours than hooks"),
        ("from symdiff_plugin.hooks import wandb", "import symdiff_plugin.model.dynamics", "more of ours than hooks"),
        (" import sys\n", "+pass\n" * 38 + " import sys\n", "41 changed lines"),
        (GOOD[GOOD.index("diff") :], "", "0 changed lines"),
    ],
)
def test_a_bad_patch_is_found(old: str, new: str, fault: str) -> None:
    assert list(faults(GOOD)) == []
    assert old in GOOD
    assert any(fault in line for line in faults(GOOD.replace(old, new)))


def test_the_series_and_its_readme_name_every_patch_once_in_one_order() -> None:
    there = {path.name for path in PATCHES.iterdir()} - {"series", "README.md"}
    assert sorted(SERIES) == sorted(there)
    described = re.findall(r"^- `([\w-]+)`: \S", (PATCHES / "README.md").read_text(), re.MULTILINE)
    assert [f"{name}.patch" for name in described] == SERIES


def test_the_series_stays_small() -> None:
    assert len(SERIES) < 30
    assert sum(len(changed_lines((PATCHES / name).read_text())) for name in SERIES) < 300


def test_each_patch_is_what_git_makes_of_it(edm_checkout: Path, tmp_path: Path) -> None:
    """One line of context, no offset, no file added, renamed or with another mode; `Upstream:` names lines it has."""
    copy = tmp_path / "edm"
    paths = [path for path in git("ls-files", "*.py", cwd=edm_checkout).split() if not path.startswith(LEFT_OUT)]
    git("checkout-index", f"--prefix={copy}/", "--", *paths, cwd=edm_checkout)  # the index is not patched
    assert git("rev-parse", "HEAD", cwd=edm_checkout).strip() == PINNED_SHA
    lengths = {str(path.relative_to(copy)): path.read_bytes().count(b"\n") for path in copy.rglob("*.py")}
    git("init", "--quiet", cwd=copy)
    git("add", "--all", "--force", cwd=copy)
    git("commit", "--quiet", "-m", "pinned", cwd=copy)
    for name in SERIES:
        text = (PATCHES / name).read_text()
        for path, lines in re.findall(r"([\w./-]+\.py):([\d, \n-]*\d)", text.partition("\nUpstream: ")[2]):
            assert 1 <= max(map(int, re.findall(r"\d+", lines))) <= lengths[path], name
        git("apply", PATCHES / name, cwd=copy)
        git("add", "--intent-to-add", "--all", cwd=copy)
        made = re.sub(r"^index .*\n", "", git("diff", "-U1", cwd=copy), flags=re.MULTILINE)
        assert text[text.index("diff --git ") :] == made, name
        git("commit", "--quiet", "--all", "-m", name, cwd=copy)
