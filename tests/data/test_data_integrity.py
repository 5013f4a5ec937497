"""Corrupt, foreign and missing files, bad folders, full disks: one line, and nothing lost or half-made."""

from __future__ import annotations

import json
import os
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from qm9_files import Command, assert_refused, run, snapshot

from symdiff_plugin.data import SPLITS, DataError, ResourceError, check_datadir, load_split
from symdiff_plugin.data.integrity import content_hash, require_space, write_together
from symdiff_plugin.data.store import SliceSpec, is_made, save_splits

MAKE = "python -m symdiff_plugin.data.qm9 --datadir"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def text(path: Path) -> None:
    path.write_text("<html>403 Forbidden</html>")


def one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def pickled(path: Path) -> None:
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "positions": arrays["positions"].astype(object)})


def without_positions(path: Path) -> None:
    arrays = dict(np.load(path))
    del arrays["positions"]
    np.savez(path, **arrays)


def one_bit(path: Path) -> None:
    arrays = dict(np.load(path))
    arrays["positions"].view(np.int32)[3, 0, 1] ^= 1
    np.savez_compressed(path, **arrays)


def another_dtype(path: Path) -> None:
    arrays = dict(np.load(path))
    np.savez_compressed(path, **{**arrays, "num_atoms": arrays["num_atoms"].astype(np.int32)})


def other_rows(path: Path) -> None:
    np.savez_compressed(path, **{key: values[1:] for key, values in np.load(path).items()})


UNREADABLE = [truncate, empty, flip_a_byte, text, one_array, pickled]
OTHER_CONTENT = [one_bit, another_dtype, other_rows]


@pytest.mark.parametrize("spoil", [*UNREADABLE, without_positions, *OTHER_CONTENT])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_command_refuses_a_spoilt_file(
    small: Path, command: Command, split: str, spoil: Callable[[Path], None]
) -> None:
    path = small / "qm9" / f"{split}.npz"
    spoil(path)
    before = snapshot(small)
    assert_refused(command("--datadir", small, "--slice", 40, 10, 10), 2, str(path), "--force")
    assert snapshot(small) == before


@pytest.mark.parametrize("spoil", [*UNREADABLE, without_positions])
def test_the_loader_refuses_a_spoilt_file(small: Path, spoil: Callable[[Path], None]) -> None:
    path = small / "qm9" / "valid.npz"
    spoil(path)
    with pytest.raises(DataError, match=f"{MAKE} {small} --force") as caught:
        load_split(small, "valid")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    load_split(small, "train")


@pytest.mark.parametrize("spoil", [truncate, empty, flip_a_byte, text, one_array, without_positions])
def test_the_check_refuses_a_spoilt_file(small: Path, spoil: Callable[[Path], None]) -> None:
    check_datadir(small)
    path = small / "qm9" / "test.npz"
    spoil(path)
    with pytest.raises(DataError, match=f"{MAKE} {small} --force") as caught:
        check_datadir(small)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_name_the_command(small: Path, tmp_path: Path) -> None:
    for call in (check_datadir, lambda datadir: load_split(datadir, "train")):
        with pytest.raises(DataError, match=f"train.npz is missing.*{MAKE} {tmp_path / 'none'}"):
            call(tmp_path / "none")
    (small / "qm9" / "valid.npz").unlink()
    with pytest.raises(DataError, match=r"valid\.npz is missing"):
        check_datadir(small)
    with pytest.raises(DataError, match="unknown split"):
        load_split(small, "validation")


def test_force_remakes(small: Path, full: Path, command: Command) -> None:
    before = {split: load_split(small, split) for split in SPLITS}
    truncate(small / "qm9" / "train.npz")
    (small / "qm9" / "slice.json").write_text("{")
    assert_refused(command("--datadir", small, "--slice", 40, 10, 10), 2, "slice.json", "--force")
    result = command("--datadir", small, "--slice", 40, 10, 10, "--slice-of", full, "--force")
    assert result.returncode == 0, result.stderr
    for split in SPLITS:
        assert content_hash(load_split(small, split)) == content_hash(before[split])


def test_missing_files_of_a_genuine_set_are_made_again(small: Path, full: Path, command: Command) -> None:
    expected = load_split(small, "valid")
    (small / "qm9" / "valid.npz").unlink()
    result = command("--datadir", small, "--slice", 40, 10, 10, "--slice-of", full)
    assert result.returncode == 0, result.stderr
    assert content_hash(load_split(small, "valid")) == content_hash(expected)


def test_a_full_set_leaves_no_record_of_a_slice(small: Path) -> None:
    save_splits(small, {split: load_split(small, split) for split in SPLITS})
    assert sorted(path.name for path in (small / "qm9").iterdir()) == ["test.npz", "train.npz", "valid.npz"]


def test_a_foreign_full_set_is_not_taken_for_qm9(small: Path, command: Command) -> None:
    """A slice without its record claims to be the full set."""
    (small / "qm9" / "slice.json").unlink()
    assert_refused(command("--datadir", small), 2, "train.npz", "--force")


def test_bad_folders(tmp_path: Path, command: Command) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "qm9").write_text("mine")
    for datadir, word in (
        (file, "is a file"),
        (file / "below", "is not a folder"),
        (tmp_path / "missing" / "datadir", "is not a folder"),
        (tmp_path / "inner", "is a file"),
    ):
        assert_refused(command("--datadir", datadir), 2, str(datadir), word)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"file", "inner", "inner/qm9"}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write to")
def test_unwritable_folder(tmp_path: Path, command: Command) -> None:
    assert_refused(command("--datadir", "/proc/symdiff"), 2, "/proc/symdiff", "cannot be made")
    (tmp_path / "qm9").symlink_to("/proc")
    assert_refused(command("--datadir", tmp_path), 2, str(tmp_path / "qm9"), "cannot be written to")


@pytest.mark.parametrize("arguments", [[], ["--datadir"], ["--datadir", "x", "--sclice", "1"], ["--datadri", "x"]])
def test_bad_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, arguments: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(command(*arguments), 2, "--help")
    assert list(tmp_path.iterdir()) == []


def test_no_space_is_said_beforehand(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(ResourceError, match="MB free and 1,000,000,000,000 MB are needed"):
        require_space(tmp_path, 10**18)


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_disk_that_gives_out_leaves_nothing(full: Path, tmp_path: Path) -> None:
    """Files may not grow beyond 20 kB: writing fails half-way, as on a full disk."""
    arguments = ["--slice", 400, 10, 10, "--slice-of", full]
    result = run("--datadir", tmp_path / "new", *arguments, preexec_fn=limit_file_size)
    assert_refused(result, 1, "train.npz", "larger than files may be there")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_gives_out_leaves_what_was_there(full: Path, small: Path) -> None:
    before = snapshot(small)
    arguments = ["--slice", 400, 10, 10, "--slice-of", full, "--force"]
    assert_refused(run("--datadir", small, *arguments, preexec_fn=limit_file_size), 1, "nothing was changed")
    assert snapshot(small) == before


def test_files_appear_together(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        assert not any(path.name in ("a", "b") for path in tmp_path.iterdir())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_together({tmp_path / "a": lambda file: file.write(b"a") and None, tmp_path / "b": fail})
    assert list(tmp_path.iterdir()) == []
    write_together({tmp_path / "a": lambda file: file.write(b"a") and None})
    assert (tmp_path / "a").read_bytes() == b"a"
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("reader", [check_datadir, lambda datadir: is_made(datadir, SliceSpec((40, 10, 10)))])
def test_a_replacement_that_was_killed_half_way_is_finished_by_whoever_reads(
    reader: Callable[[Path], object], small: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "data")) / "qm9"
    before = snapshot(folder.parent)
    (folder / "valid.npz").rename(folder / ".valid.npz.0123abcd.partial")  # train.npz is in place, test.npz is not
    (folder / "test.npz").rename(folder / ".test.npz.0123abcd.partial")
    (folder / "test.npz").write_bytes(b"the old one")
    changes = {f".{split}.npz.0123abcd.partial": f"{split}.npz" for split in ("train", "valid", "test")}
    (folder / ".changes.json").write_text(json.dumps({**changes, "gone": None}))
    reader(folder.parent)
    assert snapshot(folder.parent) == before


def test_content_hash_sees_content_only(tmp_path: Path) -> None:
    arrays = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.arange(2)}
    reference = content_hash(arrays)
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", **arrays)
        assert content_hash(dict(np.load(tmp_path / "a.npz"))) == reference
    assert content_hash({**arrays, "x": np.asfortranarray(arrays["x"])}) == reference
    assert content_hash({**arrays, "x": arrays["x"].astype(">f4")}) == reference

    changed = arrays["x"].copy()
    changed.view(np.int32)[1, 2] ^= 1
    for other in (
        {"n": arrays["n"], "x": arrays["x"]},
        {"y": arrays["x"], "n": arrays["n"]},
        {**arrays, "x": changed},
        {**arrays, "x": arrays["x"].reshape(3, 2)},
        {**arrays, "x": arrays["x"].view(np.int32)},
        {"x": arrays["x"]},
    ):
        assert content_hash(other) != reference


def test_crc_check_of_numpy_files_is_what_the_check_relies_on(small: Path) -> None:
    with zipfile.ZipFile(small / "qm9" / "train.npz") as archive:
        assert archive.testzip() is None
        assert all(member.compress_type == zipfile.ZIP_DEFLATED for member in archive.infolist())
