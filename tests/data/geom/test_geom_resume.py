"""A conversion that was killed goes on to the same bytes; what belongs to another is not gone on with."""

from __future__ import annotations

import itertools
import json
import resource
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from geom_archives import ARCHIVE, assert_refused, command, contents, process, read_maps, repeated

from symdiff_plugin.data.geom.archive import Archive
from symdiff_plugin.data.geom.convert import convert
from symdiff_plugin.data.geom.ensemble import lowest
from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.data.geom.partial import Partial

OPTIONS = {"conformations": 30, "remove_h": False}
PARTIAL = ".geom_drugs_30.partial"
# The command, which notes every 100 kB where it is.
OFTEN = """
import sys
from symdiff_plugin.data.geom import __main__, convert
convert.convert.__defaults__ = (*convert.convert.__defaults__[:-1], 100_000)
sys.exit(__main__.main())
"""


@pytest.fixture(scope="module")
def whole(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an unbroken run makes of the archive."""
    out = tmp_path_factory.mktemp("whole")
    convert(archive, out)
    return contents(out)


def stop_after(archive: Path, out: Path, molecules: int, saved_every: int = 5) -> None:
    """A conversion that stops there and leaves what it has; the rows after the last save go to disk too."""
    with Archive(archive) as source:
        files = GeomFiles(out / "geom_drugs_30.npy")
        with Partial(files, {"archive": source.identity(), **OPTIONS}) as partial:
            found = source.molecules(partial.place, partial.last_smiles(partial.place.read))
            for number, (smiles, record) in enumerate(itertools.islice(found, molecules), start=1):
                partial.add(smiles, lowest(record, 30))
                if number % saved_every == 0:
                    partial.save(source.place)


@pytest.mark.parametrize("molecules", [0, 3, 5, 7, 10, 12, 20, 23])
def test_goes_on_from_anywhere(archive: Path, tmp_path: Path, whole: dict[str, bytes], molecules: int) -> None:
    stop_after(archive, tmp_path, molecules)
    convert(archive, tmp_path)
    assert contents(tmp_path) == whole


def test_goes_on_twice(
    archive: Path, tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    stop_after(archive, tmp_path, 6)
    stop_after(archive, tmp_path, 9, saved_every=4)
    made = command("convert", archive, "--out", tmp_path, capsys=capsys)
    assert "going on after 13 molecules" in made.stdout
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("packed", [False, True])
def test_a_kill_costs_nothing(archive: Path, tmp_path: Path, packed: bool) -> None:
    long = repeated(tmp_path / "long" / ARCHIVE, archive, times=20)
    convert(long, tmp_path / "whole")
    if packed:
        with tarfile.open(tmp_path / "packed.tar.gz", "w:gz", compresslevel=1) as tar:
            tar.add(long, ARCHIVE)
        long = tmp_path / "packed.tar.gz"
    out = tmp_path / "out"
    kills = 0
    for least in (1, 8_000_000):
        running = process("convert", long, "--out", out, code=OFTEN)
        while running.poll() is None:
            if offset_in(out) >= least:
                running.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        _, errors = running.communicate()
        kills += running.returncode == -signal.SIGKILL
        assert running.returncode in (0, -signal.SIGKILL), errors
    assert kills
    kept = offset_in(out)
    last = process("convert", long, "--out", out)
    printed, _ = last.communicate()
    assert ("going on after" in printed) == (kills == 2), kept
    assert contents(out) == contents(tmp_path / "whole")


def test_ctrl_c_says_how_to_go_on(archive: Path, tmp_path: Path) -> None:
    long = repeated(tmp_path / "long" / ARCHIVE, archive, times=40)
    running = process(
        "convert", long, "--out", tmp_path / "out", code=OFTEN,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # it may be ignored here
    )  # fmt: skip
    while running.poll() is None and not offset_in(tmp_path / "out"):
        time.sleep(0.001)
    running.send_signal(signal.SIGINT)
    printed = running.communicate()
    result = subprocess.CompletedProcess([], running.returncode, *printed)
    assert_refused(result, "convert", 130, "interrupted", "molecules are kept", "goes on")


def offset_in(out: Path) -> int:
    """How far the conversion in a folder has noted that it is; 0 where it has noted nothing."""
    try:
        return json.loads((out / PARTIAL / "state.json").read_text())["place"]["offset"]
    except FileNotFoundError:
        return 0


def test_does_not_go_on_with_another_archive(
    archive: Path, rdkit_archive: Path, tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    stop_after(rdkit_archive, tmp_path, 12)
    made = command("convert", archive, "--out", tmp_path, capsys=capsys)
    assert "discarding what is half made there of another archive" in made.stdout
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("change", ["time", "head", "options"])
def test_does_not_go_on_with_a_changed_one(
    archive: Path, tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str], change: str
) -> None:
    changed = shutil.copy(archive, tmp_path / ARCHIVE)
    stop_after(changed, tmp_path, 12)
    state = json.loads((tmp_path / PARTIAL / "state.json").read_text())
    if change == "time":
        changed.touch()
    elif change == "head":
        state["of"]["archive"]["sha256_of_head"] = "0" * 64
    else:
        state["of"]["remove_h"] = True
    (tmp_path / PARTIAL / "state.json").write_text(json.dumps(state))
    made = command("convert", changed, "--out", tmp_path, capsys=capsys)
    assert "discarding" in made.stdout
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("damage", ["state.json", "atoms.npy", "smiles.txt"])
def test_starts_anew_where_the_half_is_damaged(
    archive: Path, tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    stop_after(archive, tmp_path, 12)
    damaged = tmp_path / PARTIAL / damage
    damaged.write_bytes(damaged.read_bytes()[:100])
    made = command("convert", archive, "--out", tmp_path, capsys=capsys)
    assert "it is damaged" in made.stdout
    assert contents(tmp_path) == whole


def test_one_at_a_time(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Partial(GeomFiles(tmp_path / "geom_drugs_30.npy"), {}):
        refused = command("convert", archive, "--out", tmp_path, capsys=capsys)
    assert_refused(refused, "convert", 2, "another process")


def test_a_full_disk_is_one_line_and_goes_on(archive: Path, tmp_path: Path) -> None:
    long = repeated(tmp_path / "long" / ARCHIVE, archive, times=10)
    convert(long, tmp_path / "whole")
    limit = len((tmp_path / "whole" / "geom_drugs_30.npy").read_bytes()) // 2
    full = process(
        "convert", long, "--out", tmp_path / "out", code=OFTEN,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    printed = full.communicate()
    result = subprocess.CompletedProcess([], full.returncode, *printed)
    assert_refused(result, "convert", 1, "cannot write to", "make room", "the same command goes on")
    assert set(contents(tmp_path / "out")) == {
        f"{PARTIAL}/{name}" for name in ("atoms.npy", "n_atoms.npy", "smiles.txt", "conformers.npy", "state.json")
    }
    assert 0 < offset_in(tmp_path / "out") < long.stat().st_size
    convert(long, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_repeated_molecule_is_noticed_across_the_break(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """EDM's dict would drop the first without a word; here the reader forgot it with its process."""
    import msgpack

    first = read_maps(archive)[0]
    pairs = [*first.items(), next(iter(first.items()))]
    packer = msgpack.Packer()
    twice = tmp_path / ARCHIVE
    twice.write_bytes(packer.pack_map_header(len(pairs)) + b"".join(packer.pack(x) for pair in pairs for x in pair))
    stop_after(twice, tmp_path, 5)
    refused = command("convert", twice, "--out", tmp_path, capsys=capsys)
    assert "going on after 5 molecules" in refused.stdout
    assert_refused(refused, "convert", 2, "twice", "after 10 molecules")
    assert contents(tmp_path) == {}
