"""One process at a time in a folder, and what a killed one leaves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from other_process import in_another_process, kill

from symdiff_plugin.common.files import Changes, finish_changes, remove_leftovers, replacing
from symdiff_plugin.common.lock import Lock, LockedError


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    held: list[Lock] = []
    process = in_another_process(lambda: held.append(Lock(tmp_path / "run", "training")))
    try:
        with pytest.raises(LockedError, match=rf"run: process {process} on \S+ is training since \d{{4}}-") as error:
            Lock(tmp_path / "run", "training")
        assert "\n" not in str(error.value)
    finally:
        kill(process)
    lock = Lock(tmp_path / "run", "training")  # stale
    assert f"process {os.getpid()} " in (tmp_path / "run/.lock").read_text()
    lock.release()


def test_children_do_not_keep_it(tmp_path: Path) -> None:
    """The processes of a data loader live on for some seconds when their parent is killed."""
    lock = Lock(tmp_path, "training")
    process = in_another_process(lambda: None)
    lock.release()
    try:
        kill(in_another_process(lambda: Lock(tmp_path, "training") and (tmp_path / "got it").touch()))
    finally:
        kill(process)
    assert (tmp_path / "got it").exists()


def test_leftovers_are_ours_and_nobodys_work(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "checkpoint.pt", "wb") as file:
            file.write(b"half")
            file.flush()
            raise_and_stay()

    def raise_and_stay() -> None:
        os.write(ready[1], b".")
        signal.pause()

    ready = os.pipe()
    if not (process := os.fork()):
        write()
        os._exit(0)
    os.read(ready[0], 1)
    theirs = [".checkpoint.pt.12345678", ".notes.partial", "x.checkpoint.pt.12345678.partial"]
    for name in theirs:
        (tmp_path / name).touch()
    (half,) = set(tmp_path.glob(".checkpoint.pt.*.partial"))
    try:
        assert remove_leftovers(tmp_path) == 0  # it is being written
        assert half.exists()
    finally:
        kill(process)
    assert remove_leftovers(tmp_path) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(theirs)


OLD = {"a": "old a", "b": "old b", "c": "old c"}
NEW = {"a": "new a", "b": "new b"}


def change(folder: Path) -> None:
    """a and b are replaced, c goes."""
    changes = Changes(folder)
    for name in NEW:
        changes.open(name, "w").write(f"new {name}")
    changes.remove("c")
    changes.commit()


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_kill_at_any_operation_leaves_the_old_or_the_new_files(tmp_path: Path) -> None:
    seen = []
    for moment in range(30):
        folder = tmp_path / str(moment)
        folder.mkdir()
        for name, text in OLD.items():
            (folder / name).write_text(text)
        if not (process := os.fork()):
            kill_at(moment)
            change(folder)
            os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        finish_changes(folder)
        remove_leftovers(folder)
        assert content(folder) in (OLD, NEW), moment
        seen.append(content(folder) == NEW)
        if not killed:
            break
    assert not killed
    assert sorted(seen) == seen  # there is one moment
    assert {*seen[:-1]} == {False, True}


def kill_at(moment: int) -> None:
    """Die in place of the ``moment``-th call that changes something on the disk."""
    left = moment
    for name in ("replace", "unlink", "fsync", "fchmod"):
        real = getattr(os, name)

        def call(*arguments: object, real: Callable[..., object] = real) -> object:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*arguments)

        setattr(os, name, call)


def test_a_hostile_list_of_changes_reaches_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "kept").touch()
    for source, target in (("../kept", "null"), ("a", '"../b"')):
        (tmp_path / "run/.changes.json").write_text(f'{{"{source}": {target}}}')
        with pytest.raises(ValueError, match=r"\.changes\.json is damaged"):
            finish_changes(tmp_path / "run")
    assert (tmp_path / "kept").exists()
