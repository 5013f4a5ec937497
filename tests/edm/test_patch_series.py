"""The patch series as a whole: judged, applied and taken away, or refused with nothing touched."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from repositories import Upstream, git, make_root, snapshot, write_patches

from symdiff_plugin.edm import PATCHES, PINNED_SHA, REPOSITORY_ROOT, Edm, EdmError, series
from symdiff_plugin.edm.checkout import get
from symdiff_plugin.edm.series import State, apply, read_series, status, unapply

# The last one moves lines of the first, so that a patch has to be found at an offset.
EDITS = (
    ("main_qm9.py", "print('main', 30)", "print('patched', 30)"),
    ("utils.py", "return []", "return [3000]"),
    ("run.sh", "#!/bin/sh", "#!/bin/bash"),
    ("main_qm9.py", "print('main', 0)\n", "import sys\nimport os\nprint('main', 0)\n"),
)
NOT_APPLIED, APPLIED, OUTDATED = (State.NOT_APPLIED, ""), (State.APPLIED, ""), (State.OUTDATED, "")
BOTH_WAYS = pytest.mark.parametrize("change", [apply, unapply])


@pytest.fixture
def edm(edm: Edm) -> Edm:
    """A stand-in checked out, unpatched, with a series of four patches."""
    write_patches(edm, *EDITS)
    get(edm)
    return edm


def assert_refused(edm: Edm, change: Callable[[Edm], str], *words: str) -> None:
    before, judged = snapshot(edm.directory), status(edm)
    with pytest.raises(EdmError) as caught:
        change(edm)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert (snapshot(edm.directory), status(edm)) == (before, judged)


def test_applied_is_what_git_apply_makes_of_it(edm: Edm, tmp_path: Path) -> None:
    assert status(edm) == NOT_APPLIED
    assert "applied our patches (4)" in apply(edm)
    assert status(edm) == APPLIED
    other = tmp_path / "by-hand"
    git("clone", "--quiet", edm.url, other, cwd=tmp_path)
    for number in range(4):
        git("apply", edm.patches / f"patch-{number}.patch", cwd=other)
    for name in ("main_qm9.py", "utils.py", "run.sh", "qm9/models.py"):
        assert (edm.directory / name).read_bytes() == (other / name).read_bytes()
    assert (edm.directory / "run.sh").stat().st_mode & 0o111
    assert git("status", "--porcelain", "--untracked-files=no", cwd=edm.patches) == " M patches/series\n"


def test_twice_is_once_and_unapplied_is_as_before(edm: Edm) -> None:
    (edm.directory / "__pycache__").mkdir()  # untracked files do not matter
    (edm.directory / "__pycache__/utils.pyc").write_bytes(b"\0")
    before = snapshot(edm.directory)
    assert "not applied" in unapply(edm)
    apply(edm)
    patched = snapshot(edm.directory)
    assert "are applied" in apply(edm)
    assert snapshot(edm.directory) == patched
    assert "took" in unapply(edm)
    assert snapshot(edm.directory) == before
    assert git("diff", cwd=edm.directory) == ""
    assert status(edm) == NOT_APPLIED


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("name", ["utils.py", "qm9/models.py"])
def test_an_edited_or_missing_file_is_named_and_kept(edm: Edm, applied: bool, name: str) -> None:
    if applied:
        apply(edm)
    with (edm.directory / name).open("a") as file:
        file.write("# mine\n")
    for _ in range(2):
        state, detail = status(edm)
        assert state is State.EDITED
        assert name in detail
        assert_refused(edm, apply, "edited", name, "checkout -- .")
        assert_refused(edm, unapply, "edited", name)
        (edm.directory / name).unlink(missing_ok=True)


def test_part_of_the_series_applied_by_hand_is_an_edit(edm: Edm) -> None:
    git("apply", edm.patches / "patch-0.patch", cwd=edm.directory)
    assert_refused(edm, apply, "edited", "main_qm9.py")
    git("checkout", "--", ".", cwd=edm.directory)
    apply(edm)
    assert status(edm) == APPLIED


@BOTH_WAYS
def test_another_commit_or_none_is_refused(edm: Edm, upstream: Upstream, change: Callable[[Edm], str]) -> None:
    git("checkout", "--quiet", upstream.first, cwd=edm.directory)
    before = snapshot(edm.directory)
    with pytest.raises(EdmError, match=f"{upstream.first[:7]}.*{edm.sha[:7]}"):
        change(edm)
    assert snapshot(edm.directory) == before
    with pytest.raises(EdmError, match=r"symdiff_plugin\.edm get"):
        change(replace(edm, directory=edm.directory / "nowhere"))


@BOTH_WAYS
@pytest.mark.parametrize("killed", [apply, unapply])
def test_a_run_that_was_killed_half_way_is_finished_by_the_next(
    edm: Edm, change: Callable[[Edm], str], killed: Callable[[Edm], str]
) -> None:
    pinned = snapshot(edm.directory)
    apply(edm)
    patched = snapshot(edm.directory)
    if killed is apply:
        unapply(edm)
    code = (  # the first git command that writes to the files is its last
        "import os, pathlib, sys\nfrom symdiff_plugin.edm import Edm, series\n"
        "real = series.git\n"
        "def git(*words, **more):\n"
        "    done = real(*words, **more)\n"
        "    if words[0] in ('apply', 'checkout'):\n"
        "        pathlib.Path(more['cwd'], 'utils.py').write_text('half')\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return done\n"
        "series.git = git\n"
        "directory, sha, patches = sys.argv[1:]\n"
        f"series.{killed.__name__}(Edm(pathlib.Path(directory), sha, pathlib.Path(patches)))\n"
    )
    command = [sys.executable, "-c", code, edm.directory, edm.sha, edm.patches]
    assert subprocess.run(command, cwd=REPOSITORY_ROOT).returncode == -signal.SIGKILL
    assert status(edm) == OUTDATED
    change(edm)
    assert snapshot(edm.directory) == (patched if change is apply else pinned)
    assert status(edm) == (APPLIED if change is apply else NOT_APPLIED)


@BOTH_WAYS
def test_an_earlier_version_of_the_series_is_replaced(edm: Edm, change: Callable[[Edm], str]) -> None:
    pinned = snapshot(edm.directory)
    apply(edm)
    write_patches(edm, ("main_qm9.py", "print('main', 30)", "print('newer', 30)"))
    assert status(edm) == OUTDATED
    change(edm)
    if change is apply:
        pinned["main_qm9.py"] = (pinned["main_qm9.py"] or b"").replace(b"'main', 30", b"'newer', 30")
    assert snapshot(edm.directory) == pinned
    assert status(edm) == (APPLIED if change is apply else NOT_APPLIED)


def test_a_damaged_stamp_makes_patched_files_edits(edm: Edm) -> None:
    apply(edm)
    (edm.directory / ".git/symdiff-series.json").write_text("{")
    assert_refused(edm, apply, "edited")


def test_a_broken_or_missing_patch_changes_nothing(edm: Edm) -> None:
    patch = edm.patches / "patch-2.patch"
    patch.write_text(patch.read_text().replace("-#!/bin/sh", "-#!/bin/csh"))
    assert_refused(edm, apply, "cannot apply our patches", "run.sh", "checkout -- patches")
    patch.unlink()
    with pytest.raises(EdmError, match=r"patch-2\.patch is missing"):
        apply(edm)


def test_no_space_changes_nothing(edm: Edm, monkeypatch: pytest.MonkeyPatch) -> None:
    """What git had written of the patches when it failed is taken away again."""

    def git_without_space(*words: str | Path, **more: object) -> bytes:
        if words[0] == "apply":
            (edm.directory / "utils.py").write_text("half")
            raise series.GitError("No space left on device", exit_status=1)
        return real(*words, **more)  # type: ignore[arg-type]

    real = series.git
    monkeypatch.setattr(series, "git", git_without_space)
    assert_refused(edm, apply, "No space left")


def test_whitespace_is_not_forgiven_whatever_the_users_settings(
    edm: Edm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "gitconfig"
    settings.write_text("[apply]\n\tignoreWhitespace = change\n\twhitespace = fix\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    patch = edm.patches / "patch-1.patch"
    patch.write_text(patch.read_text().replace("-    return []", "-\treturn []"))
    # The settings above would let it through: that is what is tested.
    git("apply", "--check", patch, cwd=edm.directory)
    assert_refused(edm, apply, "cannot apply our patches", "utils.py")


def test_line_endings_of_a_clone_made_elsewhere(edm: Edm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "gitconfig"
    settings.write_text('[core]\n\tautocrlf = true\n[protocol "file"]\n\tallow = always\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    cloned = tmp_path / "cloned"
    git("clone", "--quiet", "--recursive", edm.patches.parent, cloned, cwd=tmp_path)
    edm = replace(edm, directory=cloned / edm.directory.name)
    assert b"\r\n" in (edm.directory / "utils.py").read_bytes()
    assert status(edm) == NOT_APPLIED
    apply(edm)
    assert status(edm) == APPLIED
    unapply(edm)
    assert status(edm) == NOT_APPLIED
    assert git("diff", cwd=edm.directory) == ""


def test_the_real_series(edm_checkout: Path, tmp_path: Path) -> None:
    edm = replace(make_root(tmp_path / "real", Upstream(edm_checkout, PINNED_SHA, PINNED_SHA)), patches=PATCHES)
    get(edm)
    pinned = snapshot(edm.directory)
    apply(edm)
    assert status(edm) == APPLIED
    patched = snapshot(edm.directory)
    assert patched.keys() == pinned.keys()
    for path in pinned:
        if pinned[path] != patched[path]:
            ast.parse(patched[path] or b"", path)
    assert b"hooks.parse_args" in (patched["main_qm9.py"] or b"")
    assert len(read_series(PATCHES)) == len(list(PATCHES.glob("*.patch")))
    unapply(edm)
    assert snapshot(edm.directory) == pinned
    assert git("status", "--porcelain", cwd=edm.directory) == ""
