"""Getting EDM: what is built, what is refused, and that a failure leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repositories import FILES, Upstream, git, make_root, snapshot

from symdiff_plugin.edm import EDM_FOLDER, PINNED_SHA, REPOSITORY_ROOT, Edm, EdmError, add_edm_to_path, import_edm
from symdiff_plugin.edm.checkout import GEOM_PERMUTATION, get

LEFT_OUT = {name for name in FILES if name.startswith(("outputs/", "generated_samples/")) or name == GEOM_PERMUTATION}


def assert_checked_out(edm: Edm) -> None:
    found = {path for path, data in snapshot(edm.directory).items() if data is not None}
    assert found == {*FILES, "README.md"} - LEFT_OUT
    for name in found - {"README.md"}:
        assert (edm.directory / name).read_text() == FILES[name]
    assert git("status", "--porcelain", cwd=edm.directory) == ""
    assert not list(edm.root.glob(".*partial*"))


def assert_submodule(edm: Edm) -> None:
    assert git("submodule", "status", cwd=edm.root).startswith(f" {edm.sha} {EDM_FOLDER}")
    assert git("status", "--porcelain", cwd=edm.root) == ""
    assert (edm.directory / ".git").is_file()


def assert_refused(edm: Edm, *words: str, source: str | Path | None = None, code: int = 2) -> None:
    before = snapshot(edm.root)
    with pytest.raises(EdmError) as caught:
        get(edm, str(source) if source else None)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert caught.value.exit_status == code
    assert snapshot(edm.root) == before


def test_it_becomes_a_clean_sparse_submodule(root: Edm) -> None:
    assert "got EDM" in get(root)
    assert_checked_out(root)
    assert_submodule(root)


def test_a_downloaded_archive_gets_a_plain_checkout(tmp_path: Path, upstream: Upstream) -> None:
    edm = make_root(tmp_path / "archive", upstream, work_tree=False)
    get(edm)
    assert_checked_out(edm)
    assert (edm.directory / ".git").is_dir()


def test_an_archive_inside_another_work_tree_leaves_that_one_alone(root: Edm, upstream: Upstream) -> None:
    inner = make_root(root.root / "inner", upstream, work_tree=False)
    get(inner)
    assert_checked_out(inner)
    assert not (root.root / ".git/modules").exists()


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_mirror_without_the_large_blobs_will_do(root: Edm, upstream: Upstream, scheme: str) -> None:
    for name in LEFT_OUT:
        upstream.forget(name)
    get(root, f"{scheme}{upstream.path}")
    assert_checked_out(root)
    assert_submodule(root)


def test_a_shallow_clone_will_do(root: Edm, upstream: Upstream, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git("clone", "--quiet", "--depth=1", f"file://{upstream.path}", shallow, cwd=tmp_path)
    get(root, str(shallow))
    assert_checked_out(root)


def test_another_users_checkout_will_do(root: Edm, upstream: Upstream, tmp_path: Path) -> None:
    get(root)
    other = make_root(tmp_path / "other", upstream)
    shutil.rmtree(upstream.path)
    get(other, str(root.directory))
    assert_checked_out(other)


def test_a_relative_source_is_relative_to_the_caller(
    root: Edm, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(upstream.path.parent)
    get(root, upstream.path.name)
    assert_checked_out(root)


def test_a_recursive_clone_is_fine_as_it_is(root: Edm, tmp_path: Path) -> None:
    cloned = tmp_path / "cloned"
    git("-c", "protocol.file.allow=always", "clone", "--quiet", "--recursive", root.root, cloned, cwd=tmp_path)
    edm = Edm(cloned, root.sha)
    before = snapshot(cloned)
    assert "got" not in get(edm)
    assert snapshot(cloned) == before
    assert_submodule(edm)


def test_a_second_run_needs_nobody(root: Edm, upstream: Upstream) -> None:
    get(root)
    shutil.rmtree(upstream.path)
    assert "got" not in get(root)
    assert_checked_out(root)


@pytest.mark.parametrize("how", ["removed", "deinitialised"])
def test_an_emptied_folder_comes_back_without_a_network(root: Edm, upstream: Upstream, how: str) -> None:
    get(root)
    shutil.rmtree(upstream.path)
    if how == "removed":
        shutil.rmtree(root.directory)
    else:
        git("submodule", "--quiet", "deinit", "--force", EDM_FOLDER, cwd=root.root)
    get(root)
    assert_checked_out(root)
    assert_submodule(root)


def test_a_newly_pinned_commit_is_fetched_into_the_kept_repository(tmp_path: Path, upstream: Upstream) -> None:
    early = Upstream(upstream.path, upstream.first, upstream.first)
    edm = make_root(tmp_path / "early", early)
    git("reset", "--quiet", "--hard", upstream.first, cwd=upstream.path)
    get(edm)
    git("reset", "--quiet", "--hard", upstream.pinned, cwd=upstream.path)
    shutil.rmtree(edm.directory)
    late = Edm(edm.root, upstream.pinned)
    git("update-index", "--cacheinfo", f"160000,{late.sha},{EDM_FOLDER}", cwd=late.root)
    git("commit", "--quiet", "-m", "pin", cwd=late.root)
    get(late)
    assert_checked_out(late)
    assert_submodule(late)


def test_what_a_killed_run_left_is_cleared_away(root: Edm) -> None:
    left = root.root / f".{EDM_FOLDER}.partial"
    left.mkdir()
    (left / "half").write_text("half")
    get(root)
    assert_checked_out(root)


def test_a_checkout_at_another_commit_is_refused(root: Edm, upstream: Upstream) -> None:
    get(root)
    git("checkout", "--quiet", upstream.first, cwd=root.directory)
    assert_refused(root, upstream.first[:7], root.sha[:7], "checkout")


def test_a_folder_that_is_not_edm_is_refused(root: Edm) -> None:
    (root.directory / "notes.txt").write_text("mine")
    assert_refused(root, "not a git checkout", "move it away")


def test_a_file_in_its_place_is_refused(root: Edm) -> None:
    root.directory.rmdir()
    root.directory.write_text("mine")
    assert_refused(root, "is a file")


def test_a_source_that_is_no_repository_is_refused(root: Edm, tmp_path: Path) -> None:
    assert_refused(root, "EDM_REPO", "does not appear to be a git repository", source=tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    assert_refused(root, "EDM_REPO", "does not appear to be a git repository", source=tmp_path / "folder")


def test_a_mirror_without_the_pinned_commit_is_refused(root: Edm, tmp_path: Path) -> None:
    other = tmp_path / "another"
    other.mkdir()
    git("init", "--quiet", cwd=other)
    git("commit", "--quiet", "--allow-empty", "-m", "not EDM", cwd=other)
    assert_refused(root, "EDM_REPO", root.sha[:7], source=other)


def test_an_unreachable_server_is_one_line(root: Edm) -> None:
    # Nothing listens on port 1, and the address is this machine's own.
    assert_refused(root, "EDM_REPO", "cannot get EDM", source="http://127.0.0.1:1/edm.git", code=1)


def test_a_mirror_without_a_needed_blob_leaves_nothing(root: Edm, upstream: Upstream) -> None:
    upstream.forget("utils.py")
    assert_refused(root, "EDM_REPO", "cannot get EDM", code=1)
    assert not (root.root / ".git/modules").exists()


def test_without_git_it_says_so(root: Edm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_refused(root, "git is not installed", code=1)


def test_the_geom_permutation_comes_when_asked_for(root: Edm) -> None:
    get(root)
    assert not (root.directory / GEOM_PERMUTATION).exists()
    get(root, geom=True)
    assert (root.directory / GEOM_PERMUTATION).read_text() == FILES[GEOM_PERMUTATION]
    assert git("status", "--porcelain", cwd=root.directory) == ""
    git("checkout", "--quiet", root.sha, cwd=root.directory)
    assert (root.directory / GEOM_PERMUTATION).is_file()


def test_a_mirror_without_the_geom_permutation_says_what_to_do(root: Edm, upstream: Upstream) -> None:
    upstream.forget(GEOM_PERMUTATION)
    get(root)
    before = snapshot(root.root)
    with pytest.raises(EdmError, match=r"put it at .*geom_permutation\.npy"):
        get(root, geom=True)
    assert snapshot(root.root) == before


def test_the_commands_need_the_standard_library_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "symdiff_plugin.edm", "path"],
        cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.stdout.strip() == str(REPOSITORY_ROOT / EDM_FOLDER)


def test_an_unknown_command_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "symdiff_plugin.edm", "patch"], cwd=REPOSITORY_ROOT, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_importing_says_what_is_missing(root: Edm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(EdmError, match="EDM is not in"):
        add_edm_to_path(root)
    get(root)
    with pytest.raises(EdmError, match="lacks our patches"):
        import_edm("utils", root)
    (root.directory / "main_qm9.py").write_text("from symdiff_plugin import hooks\n")
    monkeypatch.setitem(sys.modules, "utils", os)  # whatever is there now, or nothing, comes back at the end
    monkeypatch.delitem(sys.modules, "utils")
    module = import_edm("utils", root)
    assert module.queue() == []
    monkeypatch.setitem(sys.modules, "utils", os)
    with pytest.raises(EdmError, match="not from EDM"):
        import_edm("utils", root)
    monkeypatch.delitem(sys.modules, "utils")


def test_our_repository_pins_that_commit() -> None:
    settings = (REPOSITORY_ROOT / ".gitmodules").read_text()
    assert "ignore = dirty" in settings
    if not (REPOSITORY_ROOT / ".git").exists():
        pytest.skip("a downloaded archive has no gitlink to compare with")
    assert git("ls-files", "--stage", "--", EDM_FOLDER, cwd=REPOSITORY_ROOT).split()[:2] == ["160000", PINNED_SHA]


def test_the_real_edm(edm_checkout: Path, tmp_path: Path, upstream: Upstream) -> None:
    edm = Edm(make_root(tmp_path / "real", Upstream(edm_checkout, PINNED_SHA, PINNED_SHA)).root)
    get(edm)
    assert_submodule(edm)
    tracked = set(git("ls-tree", "-r", "--name-only", PINNED_SHA, cwd=edm_checkout).split())
    expected = {name for name in tracked if not name.startswith(("outputs/", "generated_samples/"))}
    found = {path for path, data in snapshot(edm.directory).items() if data is not None}
    assert found == expected - {GEOM_PERMUTATION}
