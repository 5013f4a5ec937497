"""PoseBusters' checks of single molecules (Buttenschoen et al. 2024), an optional extra beside EDM's metrics.

PoseBusters needs bonds and their orders, which EDM's rule does not give for GEOM-Drugs. They are perceived by RDKit
from the coordinates (:mod:`symdiff_plugin.molecules.perception`); a molecule in pieces, not finite, or for which no
neutral assignment is found fails every check.

The slow check is the internal energy, against 50 conformers that RDKit makes of every molecule: seconds for a drug.
Of strained cages it can make none, after most of a minute; of 30 molecules of QM9 these were four. PoseBusters then
has no result for this check, which its own tables take for a pass, though it is what becomes of absurd graphs too.
Here such a molecule does not pass, and a second fraction says how many pass all that could be computed. Water and
its like fail, for their conformers' energy is zero: what a model scores is to be held against what the data score.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import rdkit
from rdkit.Chem import Mol

from symdiff_plugin.common.progress import progress
from symdiff_plugin.data.schema import ResourceError
from symdiff_plugin.molecules.molecule import Molecule
from symdiff_plugin.molecules.perception import RULE, perceive

INSTALL = "pip install 'symdiff-plugin[posebusters]', or pip install posebusters"
CONFIG = "mol"


def posebusters_version() -> str:
    """The version that is installed.

    Raises:
        ResourceError: there is none, or it cannot be imported.
    """
    try:
        import posebusters  # noqa: F401

        return version("posebusters")
    except (ImportError, PackageNotFoundError) as error:
        raise ResourceError(f"--posebusters needs the package posebusters ({error}): {INSTALL}") from None


class Checks:
    """PoseBusters' checks for one molecule without a reference, its configuration ``mol``."""

    def __init__(self) -> None:
        from posebusters import PoseBusters

        # PoseBusters hands RDKit's log the stderr of the moment. Where that was redirected it may be closed by now, and
        # the checks that hand it the next one, which flushes the last, would fail.
        if rdkit.log_handler.stream.closed:
            rdkit.log_handler.stream = sys.stderr
        self._busters = PoseBusters(CONFIG, max_workers=0)
        # Release 0.6 lists the energy twice, once without an output: that is the time of all else together.
        modules = [one for one in self._busters.config["modules"] if one.get("chosen_binary_test_output")]
        self._busters.config["modules"] = modules
        self.names = tuple(
            one.get("rename_outputs", {}).get(output, output).lower().replace(" ", "_")
            for one in modules
            for output in one["chosen_binary_test_output"]
        )

    def of(self, mol: Mol) -> dict[str, bool | None]:
        """What each check says of a molecule with bonds, hydrogens and one conformer; None: it has no result."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, about what PoseBusters does with it
            try:
                row = self._busters.bust([Mol(mol)]).iloc[0]
            except Exception:  # whatever RDKit's force field and InChI raise on a molecule that is none
                return dict.fromkeys(self.names)
        words = {"True": True, "False": False}  # else NaN or NA
        return {name: words.get(str(row[name])) for name in self.names}


def bust(molecules: Sequence[Molecule]) -> dict[str, Any]:
    """Fractions of molecules that pass.

    Args:
        molecules: judged by their coordinates alone.

    Returns:
        ``passes_all``, ``passes_all_computed`` (a check without a result left out), ``bonds_perceived``, each check's
        own fraction under ``checks``, and under ``not_computed`` how often it had no result: all of all molecules.
        Besides, ``n_molecules``, ``config``, ``bonds`` (the rule they are perceived by) and ``version``.

    Raises:
        ResourceError: PoseBusters is not installed.
        ValueError: there are no molecules.
    """
    n_molecules = len(molecules)
    if n_molecules < 1:
        raise ValueError("there are no molecules")
    found = {"n_molecules": n_molecules, "version": posebusters_version(), "config": CONFIG, "bonds": RULE}
    checks = Checks()
    results: list[dict[str, bool | None] | None] = []
    log = logging.getLogger("posebusters")
    level = log.level
    log.setLevel(logging.CRITICAL)  # a failure is a result here
    try:
        for molecule in progress(molecules, f"PoseBusters, {n_molecules:,} molecules"):
            seen = perceive(molecule)
            results.append(None if seen.smiles is None else checks.of(seen.mol))
    finally:
        log.setLevel(level)
    perceived = [result for result in results if result is not None]

    def fraction(good: Iterable[bool]) -> float:
        return sum(good) / n_molecules

    return {
        "passes_all": fraction(all(result.values()) for result in perceived),
        "passes_all_computed": fraction(False not in result.values() for result in perceived),
        "bonds_perceived": fraction(True for _ in perceived),
        "checks": {name: fraction(result[name] is True for result in perceived) for name in checks.names},
        "not_computed": {name: fraction(result[name] is None for result in perceived) for name in checks.names},
        **found,
    }


def posebusters_lines(found: dict[str, Any], std: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    """Label and value of each line of a table, from :func:`bust`; ``std`` has deviations in the same places."""

    def percent(value: float, deviation: float | None) -> str:
        return f"{value:7.2%}" + ("" if deviation is None else f" +- {deviation:.2%}")

    std = std or {}
    computed = f"{found['passes_all_computed']:.2%} pass all that could be computed"
    rows = [(
        "PoseBusters",
        f"{percent(found['passes_all'], std.get('passes_all'))}  (pass all checks, of {found['n_molecules']:,} "
        f"molecules; {computed})",
    )]  # fmt: skip
    for name, value in found["checks"].items():
        absent = found["not_computed"][name]
        note = f"  (no result for {absent:.2%})" if absent else ""
        rows.append((f"- {name.replace('_', ' ')}", percent(value, std.get("checks", {}).get(name)) + note))
    return rows
