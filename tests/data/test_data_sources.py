"""Where QM9 comes from: qm9pack's files, the original archive, figshare (here a server of this machine)."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from qm9_files import WITHOUT_QM9PACK, Command, Row, as_xyz, assert_refused, run, write_archive

from symdiff_plugin.data import SPLITS, DataError, ResourceError, load_split
from symdiff_plugin.data.figshare_source import (
    ARCHIVE_NAME,
    REMOTES,
    UNCHARACTERIZED_NAME,
    Remote,
    download,
    parse_xyz,
    read_archive,
    read_uncharacterized,
    uncharacterized_by_index,
)
from symdiff_plugin.data.qm9pack_source import read_catalogue, read_qm9pack
from symdiff_plugin.data.splits import tabulate


@pytest.fixture(scope="module")
def archive(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / ARCHIVE_NAME
    write_archive(path, {int(row["Index"]): as_xyz(row) for row in rows})
    return path


@pytest.fixture(scope="module")
def uncharacterized(full: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list such as figshare's: a heading, then the number, SMILES and InChI of each."""
    kept = set(np.concatenate([load_split(full, split)["index"] for split in SPLITS]).tolist())
    lines = [f"{index:10d}  C  InChI=1S/CH4/h1H4\n" for index in range(1, 133_886) if index not in kept]
    path = tmp_path_factory.mktemp("list") / UNCHARACTERIZED_NAME
    path.write_text("List of molecules\n=====\n Index  SMILES  InChI\n\n" + "".join(lines) + "-----\n")
    return path


def test_archive_and_qm9pack_agree(archive: Path, rows: list[Row], qm9pack: Path) -> None:
    text = "".join(as_xyz(row) for row in rows)
    assert text.count("*^-") >= 50
    ours = tabulate(read_archive(archive), len(rows))
    theirs = tabulate(read_qm9pack(qm9pack, {int(row["Index"]) for row in rows}), len(rows))
    assert list(ours) == list(theirs)
    for key in ours:
        assert ours[key].tobytes() == theirs[key].tobytes(), key


def test_archive_leaves_out_the_uncharacterised(archive: Path, rows: list[Row]) -> None:
    excluded = {int(row["Index"]) for row in rows[::3]}
    kept = [molecule.index for molecule in read_archive(archive, excluded)]
    assert kept == [int(row["Index"]) for i, row in enumerate(rows) if i % 3]


def test_uncharacterised_by_list_and_by_qm9pack(uncharacterized: Path, qm9pack: Path) -> None:
    excluded = read_uncharacterized(uncharacterized)
    assert len(excluded) == 3_054
    assert excluded == uncharacterized_by_index(read_catalogue(qm9pack)[0], qm9pack)


def test_wrong_list_is_refused(uncharacterized: Path, tmp_path: Path) -> None:
    other = tmp_path / "list.txt"
    lines = uncharacterized.read_text().splitlines(keepends=True)
    for content in ("", "".join(lines[:-2]), "".join(lines).replace("    58  ", "    59  ")):
        other.write_text(content)
        with pytest.raises(DataError, match="another list"):
            read_uncharacterized(other)
    other.write_bytes(b"\xff\xfe\x00")
    for path in (other, tmp_path / "none.txt"):
        with pytest.raises(DataError, match="cannot be read"):
            read_uncharacterized(path)


def test_incomplete_archive_is_refused(archive: Path, uncharacterized: Path, tmp_path: Path, command: Command) -> None:
    result = command("--datadir", tmp_path / "d", "--archive", archive, "--uncharacterized", uncharacterized)
    assert_refused(result, 2, str(archive), "instead of 130,831")
    assert list(tmp_path.iterdir()) == []


def test_archive_without_a_list(archive: Path, tmp_path: Path) -> None:
    arguments = ["--datadir", tmp_path / "d", "--archive", archive]
    result = run(*arguments, code=WITHOUT_QM9PACK)
    assert result.returncode == 2
    assert "--uncharacterized" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["truncated", "text", "flipped", "missing", "folder"])
def test_corrupt_archive(archive: Path, tmp_path: Path, fault: str) -> None:
    content = bytearray(archive.read_bytes())
    path = tmp_path / ARCHIVE_NAME
    if fault == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif fault == "text":
        path.write_text("<html>403 Forbidden</html>" * 100)
    elif fault == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif fault == "folder":
        path.mkdir()
    with pytest.raises(DataError, match=str(path)) as caught:
        list(read_archive(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("C\t", "Si\t", "'Si'"),
        ("gdb ", "gdb", "format"),
        ("\t3151.7078", "\tfast", "fast"),
        ("5\n", "4\n", "format"),
        ("5\n", "40\n", "format"),
        ("\t6.469", "", "14 properties"),
        ("0.0126981359", "0.01*^*^2", "format"),
    ],
)
def test_spoilt_member_is_named(tmp_path: Path, old: str, new: str, word: str) -> None:
    text = as_xyz(METHANE_ROW)
    assert parse_xyz(text).index == 1
    write_archive(tmp_path / "a.tar.bz2", {1: text.replace(old, new, 1)})
    with pytest.raises(DataError, match=r"a\.tar\.bz2, member dsgdb9nsd_000001\.xyz") as caught:
        list(read_archive(tmp_path / "a.tar.bz2"))
    assert word in str(caught.value)


@pytest.mark.parametrize("fault", ["no files", "no column", "cut short", "not a number", "too few"])
def test_spoilt_qm9pack(qm9pack: Path, tmp_path: Path, fault: str) -> None:
    with (qm9pack / "qm9_part1.csv").open() as file:
        lines = [next(file) for _ in range(20)]
    if fault == "no column":
        lines[0] = lines[0].replace("XYZ_Ang", "XYZ")
    elif fault == "cut short":
        lines[-1] = lines[-1][:200] + '"'
    elif fault == "not a number":
        lines[5] = lines[5].replace("[[", "[[one", 1)
    if fault != "no files":
        (tmp_path / "qm9_part1.csv").write_text("".join(lines))
    with pytest.raises(DataError) as caught:
        tabulate(read_qm9pack(tmp_path), 130_831)
    assert ("instead of 130,831" if fault == "too few" else "reinstall qm9pack") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_molecule_twice_is_refused(qm9pack: Path) -> None:
    molecules = list(itertools.islice(read_qm9pack(qm9pack), 3))
    with pytest.raises(DataError, match="molecule 2 occurs twice"):
        tabulate([*molecules, molecules[1]], 4)
    with pytest.raises(DataError, match="more than"):
        tabulate(molecules, 2)


def test_without_qm9pack_and_network(tmp_path: Path) -> None:
    environment = {**os.environ, "https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    for arguments in ([], ["--slice", 40, 10, 10]):
        result = run("--datadir", tmp_path / "d", *arguments, code=WITHOUT_QM9PACK, env=environment)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        for word in ("figshare could not send", "pip install qm9pack", "--archive"):
            assert word in result.stderr
        assert list(tmp_path.iterdir()) == []


class _Handler(BaseHTTPRequestHandler):
    content = b""

    def do_GET(self) -> None:
        if self.path == "/refused":
            self.send_error(403)
            return
        self.send_response(202 if self.path == "/robot" else 200)
        body = b"" if self.path == "/robot" else self.content
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/broken" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(archive: Path) -> Iterator[str]:
    handler = type("Handler", (_Handler,), {"content": archive.read_bytes()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}"
        service.shutdown()
        thread.join()


@pytest.mark.parametrize("fate", ["whole", "broken", "robot", "refused", "changed"])
def test_download(fate: str, server: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    remote = Remote(f"{server}/{fate}", "0" * 32 if fate == "changed" else md5)
    monkeypatch.setitem(REMOTES, ARCHIVE_NAME, remote)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    target = tmp_path / "a.tar.bz2"
    if fate == "whole":
        download(ARCHIVE_NAME, target)
        assert target.read_bytes() == archive.read_bytes()
    else:
        with pytest.raises(ResourceError, match="figshare"):
            download(ARCHIVE_NAME, target)


METHANE_ROW = {
    "Index": "1", "SMILES": "C", "InChi": "InChI=1S/CH4/h1H4", "Elements": "['C','H','H','H','H']",
    "XYZ_Ang": "[[-0.0126981359,1.0858041578,0.0080009958],[0.002150416,-0.0060313176,0.0019761204],"
    "[1.0117308433,1.4637511618,0.0002765748],[-0.540815069,1.4475266138,-0.8766437152],"
    "[-0.5238136345,1.4379326443,0.9063972942]]",
    "Mulliken_pop": "[-0.535689,0.133921,0.133922,0.133923,0.133923]",
    "Harmonic_Freq_cmi": "[1341.307,1341.3284,1341.365,1562.6731,1562.7453,3038.3205,3151.6034,3151.6788,3151.7078]",
    "RotA_GHz": "157.7118", "RotB_GHz": "157.70997", "RotC_GHz": "157.70699", "Dipole_debye": "0.",
    "Polarizability_bohr3": "13.21", "HOMO_au": "-0.3877", "LUMO_au": "0.1171", "HOMO_LUMO_gap_au": "0.5048",
    "R2_bohr2": "35.3641", "ZPVE_au": "0.044749", "InternalEnergy_0K_au": "-40.47893",
    "InternalEnergy_298K_au": "-40.476062", "Enthalphy_298K_au": "-40.475117",
    "GibbsFreeEnergy_298K_au": "-40.498597", "Heatcapacity_Cv_cal_mol_K": "6.469",
}  # fmt: skip
