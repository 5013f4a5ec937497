"""The rules of ``patches/``: our series keeps them, and each breach of them is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from symdiff_plugin.edm import REPOSITORY_ROOT
from symdiff_plugin.edm.lint import MAX_CHANGED_LINES, lint, upstream_files

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
FILES = {"utils.py", "main_qm9.py"}


def write(folder: Path, text: str = GOOD, name: str = "say-hello.patch", series: str | None = None) -> Path:
    (folder / name).write_text(text)
    (folder / "series").write_text(f"# ours\n{name}\n" if series is None else series)
    return folder


def test_our_series_keeps_the_rules() -> None:
    assert lint(REPOSITORY_ROOT / "patches") == []


def test_our_series_changes_files_that_upstream_has(edm_checkout: Path) -> None:
    assert lint(REPOSITORY_ROOT / "patches", upstream_files()) == []


def test_a_good_patch_passes(tmp_path: Path) -> None:
    assert lint(write(tmp_path), FILES) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("Say hello.", "say-hello", "not a sentence"),
        ("Upstream: utils.py:2", "In utils.py", "no line `Upstream"),
        ("Upstream: utils.py:2", "Upstream: main_qm9.py:2", "main_qm9.py: in the header's Upstream"),
        (" import os\n", " import a\n import os\n", "more than 1 line of context"),
        ("@@ -1,3 +1,4 @@", "@@ -1,3 +1,3 @@", "does not count"),
        ("import hooks\n", "import hooks \n", "trailing whitespace"),
        ("from symdiff_plugin import hooks", "from symdiff_plugin import presets", "more of ours than hooks"),
        ("from symdiff_plugin.hooks", "from symdiff_plugin.model.dynamics", "more of ours than hooks"),
        ("from symdiff_plugin.hooks import wandb", "import symdiff_plugin.model.dynamics", "more of ours than hooks"),
        ("b/utils.py\n---", "b/main_qm9.py\n---", "not a/PATH and b/PATH"),
        ("--- a/utils.py", "--- /dev/null", "adds, removes, renames"),
        ("--- a/utils.py", "old mode 100644\nnew mode 100755\n--- a/utils.py", "changes the mode"),
        ("utils.py", "nothing.py", "nothing.py: no such file in EDM"),
        (
            "@@ -1,3 +1,4 @@\n import os\n",
            f"@@ -1,3 +1,{MAX_CHANGED_LINES + 4} @@\n import os\n" + "+pass\n" * MAX_CHANGED_LINES,
            f"{MAX_CHANGED_LINES + 3} changed lines",
        ),
        (GOOD[GOOD.index("diff") :], "", "changes nothing"),
    ],
)
def test_a_bad_patch_is_found(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in GOOD
    found = lint(write(tmp_path, GOOD.replace(old, new)), FILES)
    assert any(fault in line for line in found), found
    assert all(line.startswith("say-hello.patch: ") for line in found)


@pytest.mark.parametrize(
    ("name", "series", "fault"),
    [
        ("Say_Hello.patch", None, "not a slug"),
        ("0001.diff", None, "not a slug"),
        ("say-hello.patch", "", "say-hello.patch: not in series"),
        ("say-hello.patch", "say-hello.patch\nsay-hello.patch\n", "lists say-hello.patch twice"),
        ("say-hello.patch", "say-hello.patch\nother.patch\n", "other.patch is missing"),
    ],
)
def test_a_series_that_does_not_match_is_found(tmp_path: Path, name: str, series: str | None, fault: str) -> None:
    assert any(fault in line for line in lint(write(tmp_path, GOOD, name, series)))


def test_a_folder_without_a_series_is_found(tmp_path: Path) -> None:
    assert "missing" in lint(tmp_path)[0]
