"""Getting EDM: what is built, what is refused, and that a failure leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from repositories import FILES, Upstream, git, make_root, snapshot

from symdiff_plugin import edm as room
from symdiff_plugin.edm import EDM_FOLDER, PINNED_SHA, REPOSITORY_ROOT, Edm, EdmError, import_edm
from symdiff_plugin.edm.__main__ import main
from symdiff_plugin.edm.checkout import GEOM_PERMUTATION, get

LEFT_OUT = {name for name in FILES if name.startswith(("outputs/", "generated_samples/")) or name == GEOM_PERMUTATION}


def assert_checked_out(edm: Edm) -> None:
    found = {path for path, data in snapshot(edm.directory).items() if data is not None}
    assert found == {*FILES, "README.md"} - LEFT_OUT
    for name in found - {"README.md"}:
        assert (edm.directory / name).read_text() == FILES[name]
    assert git("status", "--porcelain", cwd=edm.directory) == ""
    assert not list(edm.directory.parent.glob(".*partial*"))


def assert_submodule(edm: Edm) -> None:
    root = edm.directory.parent
    assert git("submodule", "status", cwd=root).startswith(f" {edm.sha} {EDM_FOLDER}")
    assert git("status", "--porcelain", cwd=root) == ""


def assert_refused(edm: Edm, *words: str, source: str | Path | None = None, code: int = 2) -> None:
    before = snapshot(edm.directory.parent)
    with pytest.raises(EdmError) as caught:
        get(edm, str(source) if source else None)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.exit_status == code
    assert snapshot(edm.directory.parent) == before


def test_it_becomes_a_clean_sparse_submodule_and_a_second_run_needs_nobody(edm: Edm, upstream: Upstream) -> None:
    left = edm.directory.with_name(f".{EDM_FOLDER}.partial")  # of a run that was killed
    left.mkdir()
    (left / "half").write_text("half")
    assert "got EDM" in get(edm)
    assert_checked_out(edm)
    assert_submodule(edm)
    shutil.rmtree(upstream.path)
    assert "got" not in get(edm)
    assert_checked_out(edm)


def test_of_two_at_a_time_one_waits_for_the_other(edm: Edm) -> None:
    with ThreadPoolExecutor() as threads:
        said = list(threads.map(get, [edm] * 3))
    assert sorted(line.partition(" at ")[0] + " at" for line in said) == ["EDM is at", "EDM is at", "got EDM at"]
    assert_checked_out(edm)


def test_a_downloaded_archive_inside_another_work_tree_leaves_that_one_alone(edm: Edm, upstream: Upstream) -> None:
    inner = make_root(edm.directory.parent / "inner", upstream, work_tree=False)
    before = (edm.directory.parent / ".git/config").read_text()
    get(inner)
    assert_checked_out(inner)
    assert (edm.directory.parent / ".git/config").read_text() == before


def shallow(upstream: Upstream) -> str:
    git("clone", "--quiet", "--depth=1", f"file://{upstream.path}", "shallow", cwd=upstream.path.parent)
    return str(upstream.path.parent / "shallow")


def another_users_checkout(upstream: Upstream) -> str:
    other = make_root(upstream.path.parent / "other", upstream)
    get(other)
    shutil.rmtree(upstream.path)
    return str(other.directory)


@pytest.mark.parametrize(
    "source",
    [
        lambda upstream: str(upstream.path), lambda upstream: f"file://{upstream.path}",
        lambda upstream: upstream.path.name, shallow, another_users_checkout,
    ],
    ids=["path", "file", "relative", "shallow", "partial"],
)  # fmt: skip
def test_any_clone_or_mirror_will_do_without_the_large_blobs_too(
    edm: Edm, upstream: Upstream, source: Callable[[Upstream], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(upstream.path.parent)
    if source is not shallow:
        for name in LEFT_OUT:
            upstream.forget(name)
    get(replace(edm, url="/nowhere"), source(upstream))
    assert_checked_out(edm)
    assert_submodule(edm)


def test_a_recursive_clone_is_fine_as_it_is_and_emptied_it_is_got_again(edm: Edm, tmp_path: Path) -> None:
    root, cloned = edm.directory.parent, tmp_path / "cloned"
    git("-c", "protocol.file.allow=always", "clone", "--quiet", "--recursive", root, cloned, cwd=tmp_path)
    edm, before = replace(edm, directory=cloned / EDM_FOLDER), snapshot(cloned)
    assert "got" not in get(edm)
    assert snapshot(cloned) == before
    assert_submodule(edm)
    git("submodule", "--quiet", "deinit", "--force", EDM_FOLDER, cwd=cloned)
    assert "got" in get(edm)
    assert_checked_out(edm)
    assert_submodule(edm)


def test_what_is_not_the_pinned_edm_is_refused(edm: Edm, upstream: Upstream) -> None:
    (edm.directory / "notes.txt").write_text("mine")
    assert_refused(edm, "not a git checkout", "move it away")
    (edm.directory / "notes.txt").unlink()
    get(edm)
    git("checkout", "--quiet", upstream.first, cwd=edm.directory)
    assert_refused(edm, upstream.first[:7], edm.sha[:7], "checkout")


def test_a_source_that_is_not_edm_is_refused(edm: Edm, tmp_path: Path) -> None:
    assert_refused(edm, "EDM_REPO", "does not appear to be a git repository", source=tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    assert_refused(edm, "EDM_REPO", "does not appear to be a git repository", source=tmp_path / "folder")
    git("init", "--quiet", cwd=tmp_path / "folder")
    git("commit", "--quiet", "--allow-empty", "-m", "not EDM", cwd=tmp_path / "folder")
    assert_refused(edm, "EDM_REPO", edm.sha[:7], source=tmp_path / "folder")


def test_where_it_cannot_be_had_it_says_so(edm: Edm, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens on port 1, and the address is this machine's own.
    assert_refused(edm, "EDM_REPO", "cannot get EDM", source="http://127.0.0.1:1/edm.git", code=1)
    upstream.forget("utils.py")
    assert_refused(edm, "EDM_REPO", "cannot get EDM", code=1)
    monkeypatch.setenv("PATH", str(edm.patches))
    assert_refused(edm, "git is not installed", code=1)


def test_the_geom_permutation_comes_when_asked_for(edm: Edm, upstream: Upstream) -> None:
    get(edm)
    assert not (edm.directory / GEOM_PERMUTATION).exists()
    for _ in range(2):
        get(edm, geom=True)
        assert (edm.directory / GEOM_PERMUTATION).read_text() == FILES[GEOM_PERMUTATION]
    assert git("status", "--porcelain", cwd=edm.directory) == ""
    git("checkout", "--quiet", edm.sha, cwd=edm.directory)
    assert (edm.directory / GEOM_PERMUTATION).is_file()


def test_a_mirror_without_the_geom_permutation_says_what_to_do(edm: Edm, upstream: Upstream) -> None:
    upstream.forget(GEOM_PERMUTATION)
    get(edm)
    before = snapshot(edm.directory.parent)
    with pytest.raises(EdmError, match=r"put it at .*geom_permutation\.npy"):
        get(edm, geom=True)
    assert snapshot(edm.directory.parent) == before
    (edm.directory / GEOM_PERMUTATION).parent.mkdir(parents=True)
    (edm.directory / GEOM_PERMUTATION).write_text("by hand")
    get(edm, geom=True)
    assert (edm.directory / GEOM_PERMUTATION).read_text() == "by hand"


def test_where_edm_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In our clone; without one in the current folder; or as EDM_DIR or --into say."""
    monkeypatch.delenv("EDM_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert room.edm_directory() == REPOSITORY_ROOT / EDM_FOLDER
    monkeypatch.setattr(room, "IN_CLONE", False)
    assert room.edm_directory() == tmp_path / EDM_FOLDER
    monkeypatch.setenv("EDM_DIR", "elsewhere")
    assert room.edm_directory() == tmp_path / "elsewhere"
    assert main(["path", "--into", "here"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'here'}\n"


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-m", "symdiff_plugin.edm", *words],  # -S: the standard library alone
        cwd=REPOSITORY_ROOT, capture_output=True, text=True, env={"PATH": os.environ["PATH"], **environment},
    )  # fmt: skip


def test_the_commands_end_in_a_status_and_one_line(tmp_path: Path) -> None:
    said = command("status", EDM_DIR=str(tmp_path))
    assert (said.returncode, said.stderr) == (1, f"edm status: EDM is not in {tmp_path}: get it with "
                                              "`python -m symdiff_plugin.edm get`\n")  # fmt: skip
    (tmp_path / "file").touch()
    for words, status, reason in (
        (["patch"], 2, "invalid choice"),
        (["get", "--into", str(tmp_path)], 2, "not a git checkout"),
        (["get", "--into", str(tmp_path / "file")], 1, "Not a directory"),
    ):
        said = command(*words)
        assert (said.returncode, said.stderr.count("\n")) == (status, 1), said.stderr
        assert reason in said.stderr


def test_importing_says_what_is_missing(edm: Edm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(EdmError, match="EDM is not in"):
        import_edm("utils", edm)
    get(edm)
    with pytest.raises(EdmError, match="lacks our patches"):
        import_edm("utils", edm)
    (edm.directory / "main_qm9.py").write_text("from symdiff_plugin import hooks\n")
    monkeypatch.setitem(sys.modules, "utils", os)  # whatever is there now, or nothing, comes back at the end
    monkeypatch.delitem(sys.modules, "utils")
    assert import_edm("utils", edm).queue() == []
    monkeypatch.setitem(sys.modules, "utils", os)
    with pytest.raises(EdmError, match="not from EDM"):
        import_edm("utils", edm)
    monkeypatch.delitem(sys.modules, "utils")


def test_our_repository_pins_that_commit() -> None:
    settings = (REPOSITORY_ROOT / ".gitmodules").read_text()
    assert "ignore = dirty" in settings
    assert f"url = {room.EDM_URL}\n" in settings
    if not (REPOSITORY_ROOT / ".git").exists():
        pytest.skip("a downloaded archive has no gitlink to compare with")
    assert git("ls-files", "--stage", "--", EDM_FOLDER, cwd=REPOSITORY_ROOT).split()[:2] == ["160000", PINNED_SHA]


def test_the_real_edm(edm_checkout: Path, tmp_path: Path) -> None:
    edm = make_root(tmp_path / "real", Upstream(edm_checkout, PINNED_SHA, PINNED_SHA))
    get(edm)
    assert_submodule(edm)
    tracked = set(git("ls-tree", "-r", "--name-only", PINNED_SHA, cwd=edm_checkout).split())
    expected = {name for name in tracked if not name.startswith(("outputs/", "generated_samples/"))}
    found = {path for path, data in snapshot(edm.directory).items() if data is not None}
    assert found == expected - {GEOM_PERMUTATION}
