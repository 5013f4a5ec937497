"""Helpers of the data tests: the command, qm9pack's rows read independently, and the archive's format."""

from __future__ import annotations

import ast
import csv
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

PROPERTY_COLUMNS = {
    "A": "RotA_GHz", "B": "RotB_GHz", "C": "RotC_GHz", "mu": "Dipole_debye", "alpha": "Polarizability_bohr3",
    "homo": "HOMO_au", "lumo": "LUMO_au", "gap": "HOMO_LUMO_gap_au", "r2": "R2_bohr2", "zpve": "ZPVE_au",
    "U0": "InternalEnergy_0K_au", "U": "InternalEnergy_298K_au", "H": "Enthalphy_298K_au",
    "G": "GibbsFreeEnergy_298K_au", "Cv": "Heatcapacity_Cv_cal_mol_K",
}  # fmt: skip
COMMAND = "python -m symdiff_plugin.data.qm9: "
WITHOUT_QM9PACK = (
    "import sys; sys.modules['qm9pack'] = None; from symdiff_plugin.data.qm9 import main; sys.exit(main())"
)

Row = dict[str, str]


Result = subprocess.CompletedProcess
Command = Callable[..., Result]


def run(*arguments: object, code: str | None = None, **options: object) -> Result:
    """The data command in a process of its own."""
    how = ["-m", "symdiff_plugin.data.qm9"] if code is None else ["-c", code]
    command = [sys.executable, *how, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def assert_refused(result: Result, status: int, *words: str) -> None:
    """One line that holds ``words`` after the progress bars (if any), and the exit status."""
    message = re.split(r"[\r\n]", result.stderr.strip())[-1]
    assert result.returncode == status, result.stderr
    assert message.startswith(COMMAND), result.stderr
    for word in words:
        assert word in message
    assert result.stderr.count(COMMAND) == 1
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def snapshot(datadir: Path) -> dict[str, tuple[bytes, int]]:
    """Content and modification time of every file under a folder."""
    files = [path for path in datadir.rglob("*") if path.is_file()]
    return {str(path.relative_to(datadir)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def read_rows(folder: Path, n_plain: int, n_with_exponents: int) -> list[Row]:
    """Rows of qm9pack: some with numbers such as 1.e-6 among the coordinates, and every 1,500th or so."""
    plain, with_exponents = [], []
    count = 0
    for part in sorted(folder.glob("qm9_part*.csv")):
        with part.open(newline="") as file:
            for row in csv.DictReader(file):
                count += 1
                if "e" in row["XYZ_Ang"].lower() and len(with_exponents) < n_with_exponents:
                    with_exponents.append(row)
                elif count % (130_000 // n_plain) == 0:
                    plain.append(row)
    return sorted(with_exponents + plain, key=lambda row: int(row["Index"]))


def value(text: str) -> object:
    """A cell of qm9pack, by Python's own parser."""
    return ast.literal_eval(text)


def as_xyz(row: Row) -> str:
    """A row in the format of the original archive, its digits untouched."""
    tokens = {key: re.findall(r"[^\[\]',\s]+", row[key]) for key in
              ("Elements", "XYZ_Ang", "Mulliken_pop", "Harmonic_Freq_cmi")}  # fmt: skip
    elements = tokens["Elements"]
    xyz = [re.sub("[eE]", "*^", number) for number in tokens["XYZ_Ang"]]
    properties = "\t".join(row[column] for column in PROPERTY_COLUMNS.values())
    lines = [str(len(elements)), f"gdb {row['Index']}\t{properties}\t"]
    for i, element in enumerate(elements):
        lines.append("\t".join([element, *xyz[3 * i : 3 * i + 3], tokens["Mulliken_pop"][i]]))
    lines.append("\t".join(tokens["Harmonic_Freq_cmi"]))
    lines += [f"{row['SMILES']}\t{row['SMILES']}\t", f"{row['InChi']}\t{row['InChi']}", ""]
    return "\n".join(lines)


def write_archive(path: Path, texts: dict[int, str]) -> None:
    """A bzip2 tar archive of one file a molecule, named as in QM9."""
    with tarfile.open(path, "w:bz2") as archive:
        for index, text in texts.items():
            member = tarfile.TarInfo(f"dsgdb9nsd_{index:06d}.xyz")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
