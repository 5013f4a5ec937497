"""The patch series as a whole: judged, applied and taken away, or refused with nothing touched."""

from __future__ import annotations

import ast
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from repositories import Upstream, git, make_root, snapshot, write_patches

from symdiff_plugin.edm import PINNED_SHA, REPOSITORY_ROOT, Edm, EdmError
from symdiff_plugin.edm.checkout import get
from symdiff_plugin.edm.lint import upstream_files
from symdiff_plugin.edm.series import State, apply, read_series, status, unapply

# The last one moves lines of the first, so that a patch has to be found at an offset.
EDITS = (
    ("main_qm9.py", "print('main', 30)", "print('patched', 30)"),
    ("utils.py", "return []", "return [3000]"),
    ("run.sh", "#!/bin/sh", "#!/bin/bash"),
    ("main_qm9.py", "print('main', 0)\n", "import sys\nimport os\nprint('main', 0)\n"),
)


@pytest.fixture
def edm(root: Edm) -> Edm:
    """A stand-in checked out, unpatched, with a series of four patches."""
    write_patches(root, *EDITS)
    get(root)
    return root


def assert_refused(edm: Edm, change: Callable[[Edm], str], *words: str) -> None:
    before = snapshot(edm.directory)
    with pytest.raises(EdmError) as caught:
        change(edm)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert snapshot(edm.directory) == before


def test_applied_is_what_git_apply_makes_of_it(edm: Edm, upstream: Upstream, tmp_path: Path) -> None:
    assert status(edm).state is State.NOT_APPLIED
    assert "applied our patches (4)" in apply(edm)
    assert status(edm).state is State.APPLIED
    other = tmp_path / "by-hand"
    git("clone", "--quiet", upstream.path, other, cwd=tmp_path)
    for patch in read_series(edm.patches):
        git("apply", patch, cwd=other)
    for name in ("main_qm9.py", "utils.py", "run.sh", "qm9/models.py"):
        assert (edm.directory / name).read_bytes() == (other / name).read_bytes()
    assert (edm.directory / "run.sh").stat().st_mode & 0o111
    assert git("diff", "--name-only", cwd=edm.directory).split() == ["main_qm9.py", "run.sh", "utils.py"]
    assert git("status", "--porcelain", "--untracked-files=no", cwd=edm.root) == " M patches/series\n"


def test_twice_is_once_and_unapplied_is_as_before(edm: Edm) -> None:
    before = snapshot(edm.directory)
    assert "not applied" in unapply(edm)
    apply(edm)
    patched = snapshot(edm.directory)
    assert "are applied" in apply(edm)
    assert snapshot(edm.directory) == patched
    unapply(edm)
    assert snapshot(edm.directory) == before
    assert git("status", "--porcelain", cwd=edm.directory) == ""
    assert status(edm).state is State.NOT_APPLIED


def test_untracked_files_do_not_matter(edm: Edm) -> None:
    (edm.directory / "__pycache__").mkdir()
    (edm.directory / "__pycache__/utils.pyc").write_bytes(b"\0")
    (edm.directory / "outputs").mkdir()
    (edm.directory / "outputs/mine.npy").write_bytes(b"\0")
    apply(edm)
    assert status(edm).state is State.APPLIED


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("name", ["utils.py", "qm9/models.py"])
def test_an_edited_file_is_named_and_kept(edm: Edm, applied: bool, name: str) -> None:
    if applied:
        apply(edm)
    with (edm.directory / name).open("a") as file:
        file.write("# mine\n")
    assert status(edm).state is State.EDITED
    assert name in status(edm).detail
    assert_refused(edm, apply, "edited", name, "checkout -- .")
    assert_refused(edm, unapply, "edited", name)


def test_a_missing_file_is_an_edit(edm: Edm) -> None:
    (edm.directory / "utils.py").unlink()
    assert_refused(edm, apply, "utils.py is missing")


def test_part_of_the_series_applied_by_hand_is_an_edit(edm: Edm) -> None:
    git("apply", edm.patches / "patch-0.patch", cwd=edm.directory)
    assert status(edm).state is State.EDITED
    assert_refused(edm, apply, "main_qm9.py")
    git("checkout", "--", ".", cwd=edm.directory)
    apply(edm)


@pytest.mark.parametrize("change", [apply, unapply])
def test_another_commit_is_refused(edm: Edm, upstream: Upstream, change: Callable[[Edm], str]) -> None:
    git("checkout", "--quiet", upstream.first, cwd=edm.directory)
    assert_refused(edm, change, upstream.first[:7], edm.sha[:7])


def test_without_edm_it_says_how_to_get_it(root: Edm) -> None:
    with pytest.raises(EdmError, match=r"symdiff_plugin\.edm get"):
        apply(root)


@pytest.mark.parametrize("change", [apply, unapply])
def test_a_run_killed_between_two_files_is_finished_by_the_next(edm: Edm, change: Callable[[Edm], str]) -> None:
    pinned = snapshot(edm.directory)
    apply(edm)
    patched = snapshot(edm.directory)
    (edm.directory / "utils.py").write_bytes(pinned["utils.py"] or b"")
    assert status(edm).state is State.OUTDATED
    change(edm)
    assert snapshot(edm.directory) == (patched if change is apply else pinned)


@pytest.mark.parametrize("change", [apply, unapply])
def test_an_earlier_version_of_the_series_is_replaced(edm: Edm, change: Callable[[Edm], str]) -> None:
    pinned = snapshot(edm.directory)
    apply(edm)
    write_patches(edm, ("main_qm9.py", "print('main', 30)", "print('newer', 30)"))
    assert status(edm).state is State.OUTDATED
    change(edm)
    expected = {**pinned}
    if change is apply:
        expected["main_qm9.py"] = (pinned["main_qm9.py"] or b"").replace(b"'main', 30", b"'newer', 30")
    assert snapshot(edm.directory) == expected
    assert status(edm).state is (State.APPLIED if change is apply else State.NOT_APPLIED)


def test_a_broken_patch_changes_nothing_and_is_named(edm: Edm) -> None:
    patch = edm.patches / "patch-2.patch"
    patch.write_text(patch.read_text().replace("-#!/bin/sh", "-#!/bin/csh"))
    assert_refused(edm, apply, "patch-2.patch does not apply")


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
    assert_refused(edm, apply, "patch-1.patch does not apply")


def test_line_endings_of_a_clone_made_elsewhere(root: Edm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_patches(root, *EDITS)
    settings = tmp_path / "gitconfig"
    settings.write_text('[core]\n\tautocrlf = true\n[protocol "file"]\n\tallow = always\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    git("submodule", "--quiet", "update", "--init", cwd=root.root)
    assert b"\r\n" in (root.directory / "utils.py").read_bytes()
    apply(root)
    assert status(root).state is State.APPLIED
    unapply(root)
    assert status(root).state is State.NOT_APPLIED
    assert git("diff", cwd=root.directory) == ""


def test_a_patch_that_adds_a_file_is_refused(edm: Edm) -> None:
    (edm.patches / "patch-0.patch").write_text(
        "diff --git a/new.py b/new.py\nnew file mode 100644\n--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+1\n"
    )
    assert_refused(edm, apply, "new.py", "only change files")


def test_a_listed_patch_that_is_missing_is_named(edm: Edm) -> None:
    (edm.patches / "patch-1.patch").unlink()
    assert_refused(edm, apply, "patch-1.patch", "missing")


def test_a_full_disk_changes_nothing(root: Edm) -> None:
    # A limit on the size of files stands for the full disk: git's compressed objects stay below it, the
    # patched file does not.
    long = f"return {'1' * 300_000}"
    write_patches(root, ("main_qm9.py", "print('main', 5)", "print('patched')"), ("utils.py", "return []", long))
    get(root)
    before = snapshot(root.directory)
    code = (
        "import sys; from pathlib import Path; from symdiff_plugin.edm import Edm, EdmError\n"
        "from symdiff_plugin.edm.series import apply\n"
        "try: apply(Edm(Path(sys.argv[1]), sys.argv[2]))\n"
        "except EdmError as error: print(error); sys.exit(error.exit_status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, root.root, root.sha], cwd=REPOSITORY_ROOT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stdout
    assert snapshot(root.directory) == before
    apply(root)
    assert status(root).state is State.APPLIED


@pytest.fixture(scope="module")
def real(edm_checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Edm:
    """The real EDM and our real series, in a place of their own."""
    folder = tmp_path_factory.mktemp("real")
    made = make_root(folder / "ours", Upstream(edm_checkout, PINNED_SHA, PINNED_SHA))
    shutil.rmtree(made.patches)
    shutil.copytree(REPOSITORY_ROOT / "patches", made.patches)
    get(made)
    return made


def test_the_real_series(real: Edm) -> None:
    pinned = snapshot(real.directory)
    apply(real)
    patched = snapshot(real.directory)
    changed = {path for path in pinned if pinned[path] != patched[path]}
    assert changed <= upstream_files(real)
    for path in changed:
        ast.parse(patched[path] or b"", path)
    assert b"hooks.parse_args" in (patched["main_qm9.py"] or b"")
    apply(real)
    assert snapshot(real.directory) == patched
    unapply(real)
    assert snapshot(real.directory) == pinned
    assert git("status", "--porcelain", cwd=real.directory) == ""


def test_the_real_edm_edited_or_elsewhere_is_refused(real: Edm) -> None:
    models = real.directory / "qm9/models.py"
    text = models.read_text()
    models.write_text(text + "# mine\n")
    assert_refused(real, apply, "qm9/models.py")
    models.write_text(text)
    git("checkout", "--quiet", "HEAD~1", cwd=real.directory)
    assert_refused(real, apply, PINNED_SHA[:7], "checkout")
    git("checkout", "--quiet", PINNED_SHA, cwd=real.directory)
    assert status(real).state is State.NOT_APPLIED
