"""Archives that are truncated, corrupt, foreign or long: one line that names the byte, nothing left, flat memory."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from geom_archives import ARCHIVE, assert_refused, command, contents, edm_converts, read_maps, repeated, write_maps

from symdiff_plugin.data.geom.convert import convert
from symdiff_plugin.data.schema import DataError

ATOMS = [[8.0, 0.0, 0.0, 0.1], [1.0, 0.0, 0.8, -0.5], [1.0, 0.0, -0.8, -0.5]]
WATER = {"totalenergy": -5.0, "xyz": ATOMS}


def refusal(archive: Path, out: Path) -> str:
    """What the converter says; it must leave nothing."""
    with pytest.raises(DataError) as caught:
        convert(archive, out, save_bytes=200_000)
    assert not out.exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


def byte_named(message: str) -> int:
    return int(re.search(r"byte ([0-9,]+)", message)[1].replace(",", ""))


def test_truncation_anywhere(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    packed = [len(msgpack.packb(some)) for some in read_maps(archive)]
    boundaries = set(itertools.accumulate(packed))  # there it is a whole archive, only shorter
    rng = np.random.default_rng(0)
    lengths = {1, 2, len(content) - 1, *(sum(packed[:1]) + near for near in (-1, 1, 2, 3))}
    lengths |= set(rng.integers(1, len(content), 40).tolist())
    short = tmp_path / ARCHIVE
    for length in lengths - boundaries:
        short.write_bytes(content[:length])
        message = refusal(short, tmp_path / "out")
        assert byte_named(message) == length
        assert "truncated" in message


def test_truncation_between_maps_is_a_shorter_archive(archive: Path, tmp_path: Path) -> None:
    """Nothing tells it from a whole one: the control of the test above."""
    short = tmp_path / ARCHIVE
    short.write_bytes(archive.read_bytes()[: len(msgpack.packb(read_maps(archive)[0]))])
    convert(short, tmp_path / "out")
    assert len((tmp_path / "out" / "geom_drugs_smiles.txt").read_text().splitlines()) == 10


def test_truncation_of_a_compressed_archive(archive: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(archive, ARCHIVE)
    content = packed.read_bytes()
    for length in (10, 100, len(content) // 2, len(content) - 5_000):
        packed.write_bytes(content[:length])
        assert "corrupt" in refusal(packed, tmp_path / "out")
    spoilt = bytearray(content)
    spoilt[len(content) // 2] ^= 0xFF
    packed.write_bytes(spoilt)
    assert "corrupt" in refusal(packed, tmp_path / "out")


@pytest.mark.edm
def test_a_flipped_byte_is_refused_or_is_edms_too(rdkit_archive: Path, tmp_path: Path) -> None:
    """What msgpack and a molecule's limits cannot tell from data, EDM reads the same."""
    maps = [dict(itertools.islice(some.items(), 2)) for some in read_maps(rdkit_archive)]
    content = write_maps(tmp_path / "short" / ARCHIVE, maps).read_bytes()
    n_structure = 400  # where most bytes are structure rather than digits of numbers
    rng = np.random.default_rng(0)
    positions = [*rng.integers(0, n_structure, 50), *rng.integers(n_structure, len(content), 30)]
    refused = 0
    for number, position in enumerate(positions):
        spoilt = bytearray(content)
        spoilt[position] ^= int(rng.integers(1, 256))
        path = tmp_path / str(number) / ARCHIVE
        path.parent.mkdir()
        path.write_bytes(spoilt)
        out = tmp_path / "out"
        try:
            convert(path, out)
        except DataError:
            refused += 1
            message = refusal(path, out)
            assert 0 <= byte_named(message) <= len(content)
        else:
            ours = contents(out)
            del ours["geom_drugs_conformers_30.npy"]
            assert ours == edm_converts(path)
            shutil.rmtree(out)
    assert 10 < refused < len(positions) - 10


def water(**changes: Any) -> dict[str, Any]:
    """One molecule of one conformer, changed."""
    return {"O": {"conformers": [{**WATER, **changes}]}}


FOREIGN = {
    "a list rather than a map": [1, 2, 3],
    "a molecule without conformers": {"O": {"charge": 0}},
    "conformers that are no list": {"O": {"conformers": {"0": WATER}}},
    "the featurised archive": {"O": [{"atoms": []}]},
    "a record that is a number": {"O": 5},
    "no molecules": {},
    "no conformers": {"O": {"conformers": []}},
    "a conformer that is a number": {"O": {"conformers": [1.0]}},
    "no xyz": {"O": {"conformers": [{"totalenergy": 1.0}]}},
    "no energy": {"O": {"conformers": [{"xyz": ATOMS}]}},
    "an energy that is None": water(totalenergy=None),
    "an energy that is text": water(totalenergy="-5.0"),
    "an energy that is a list": water(totalenergy=[-5.0]),
    "an infinite energy": water(totalenergy=float("-inf")),
    "an energy that is NaN": water(totalenergy=float("nan")),
    "ragged xyz": water(xyz=[[8.0, 0.0, 0.0, 0.1], [1.0, 0.0]]),
    "flat xyz": water(xyz=[8.0, 0.0, 0.0, 0.1]),
    "three columns": water(xyz=[[0.0, 0.0, 0.1]]),
    "five columns": water(xyz=[[0.0, 8.0, 0.0, 0.0, 0.1]]),
    "symbols": water(xyz=[["O", 0.0, 0.0, 0.1]]),
    "digits as text": water(xyz=[["8", "0.0", "0.0", "0.1"]]),
    "no atoms": water(xyz=[]),
    "a coordinate that is NaN": water(xyz=[[8.0, 0.0, float("nan"), 0.1]]),
    "an infinite coordinate": water(xyz=[[8.0, 0.0, float("inf"), 0.1]]),
    "a coordinate far away": water(xyz=[[8.0, 0.0, 1e300, 0.1]]),
    "half an atom": water(xyz=[[8.5, 0.0, 0.0, 0.1]]),
    "no element": water(xyz=[[0.0, 0.0, 0.0, 0.1]]),
    "an element unheard of": water(xyz=[[119.0, 0.0, 0.0, 0.1]]),
    "a number as SMILES": {7: {"conformers": [WATER]}},
    "bytes as SMILES": {b"O": {"conformers": [WATER]}},
    "two lines as SMILES": {"O\nO": {"conformers": [WATER]}},
    "nothing as SMILES": {"": {"conformers": [WATER]}},
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_content(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: object) -> None:
    good = {"C": {"conformers": [WATER]}} if content and "no conformers" not in str(content) else {}
    before = [] if content in ({}, FOREIGN["no conformers"]) else [good]
    archive = write_maps(tmp_path / ARCHIVE, [*before, content])
    refused = command("convert", archive, "--out", tmp_path / "out", capsys=capsys)
    assert_refused(refused, "convert", 2, str(archive), "byte ", ARCHIVE)
    if before:
        start = len(msgpack.packb(good))
        assert byte_named(refused.stderr) in (start, start + 1)  # of the map, or of the molecule in it
        assert "after 1 molecules" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_the_good_half_of_the_foreign_ones_is_taken(tmp_path: Path) -> None:
    """The control: none of them is refused for what they have in common."""
    integers = water(totalenergy=-5, xyz=[[8, 0, 0, 0], [1, 0, 1, 0]])
    archive = write_maps(tmp_path / ARCHIVE, [water(), {}, {"C": {"conformers": []}}, integers])
    convert(archive, tmp_path / "out")
    rows = np.load(tmp_path / "out" / "geom_drugs_30.npy")
    assert rows.tolist() == [[0.0, *row] for row in ATOMS] + [[1.0, 8, 0, 0, 0], [1.0, 1, 0, 1, 0]]
    assert np.load(tmp_path / "out" / "geom_drugs_conformers_30.npy").tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("missing", lambda path: None),
        ("folder", Path.mkdir),
        ("empty", Path.touch),
        ("json", lambda path: path.write_text(json.dumps({"O": {"conformers": [WATER]}}))),
        ("gzip", lambda path: path.write_bytes(gzip.compress(msgpack.packb(water())))),
        ("tar", lambda path: tarfile.open(path, "w:gz").close()),
        ("claims", lambda path: path.write_bytes(b"\x81\xa1O\xdd\xff\xff\xff\xff" + bytes(100))),
        ("long", lambda path: path.write_bytes(b"\x81\xa1O\xdb\x7f\xff\xff\xff" + bytes(100))),
        ("deep", lambda path: path.write_bytes(b"\x81\xa1O" + b"\x91" * 10_000)),
    ],
)  # fmt: skip
def test_foreign_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, write: Callable[[Path], object]
) -> None:
    path = tmp_path / name
    write(path)
    refused = command("convert", path, "--out", tmp_path / "new" / "out", capsys=capsys)
    assert_refused(refused, "convert", 2, str(path))
    assert not (tmp_path / "new").exists()


def test_one_molecule_cannot_take_all_memory(tmp_path: Path) -> None:
    """As in one map that holds the archive rather than a molecule: valid msgpack, endless."""
    text = msgpack.packb("C" * 2**20)
    endless = tmp_path / ARCHIVE
    with endless.open("wb") as file:
        file.write(b"\x81\xa1O\xdc" + (150).to_bytes(2, "big"))
        for _ in range(150):
            file.write(text)
    assert "one molecule takes over" in refusal(endless, tmp_path / "out")


def peak(work: Callable[[], object]) -> int:
    """The most memory that Python and NumPy held, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.edm
def test_memory_does_not_grow_with_the_archive(archive: Path, tmp_path: Path) -> None:
    short = repeated(tmp_path / "short" / ARCHIVE, archive, times=2)  # enough to fill all buffers
    long = repeated(tmp_path / "long" / ARCHIVE, archive, times=10)
    edm_converts(short)  # imports count for nobody
    ours = [peak(lambda path=path: convert(path, path.parent / "ours")) for path in (short, long)]
    edms = [peak(lambda path=path: edm_converts(path)) for path in (short, long)]
    assert ours[1] < 1.2 * ours[0]
    assert edms[1] > 2 * edms[0]  # or the measure would not see it
