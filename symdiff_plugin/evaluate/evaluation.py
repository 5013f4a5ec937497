"""An evaluation from beginning to end, and the files and the table that it leaves."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symdiff_plugin.common.files import write_json
from symdiff_plugin.evaluate.gamma_worth import MOLECULES as GAMMA_MOLECULES
from symdiff_plugin.evaluate.gamma_worth import gamma_lines, gamma_worth
from symdiff_plugin.evaluate.likelihood import PARTITIONS, negative_log_likelihood
from symdiff_plugin.evaluate.metrics import Verdict, judge, summarise
from symdiff_plugin.evaluate.novelty import training_smiles
from symdiff_plugin.evaluate.posebusters import bust, posebusters_lines
from symdiff_plugin.evaluate.sampling import sample_molecules
from symdiff_plugin.evaluate.trained_run import TrainedRun
from symdiff_plugin.molecules.molecule import Molecule, format_frame, write_xyz
from symdiff_plugin.molecules.picture import write_picture
from symdiff_plugin.molecules.sdf import write_sdf
from symdiff_plugin.training.arguments import seed_everything

PICTURED = 20
SINGLE_FILES_UP_TO = 1000
LIKELIHOOD_BATCH_SIZE = 100
_ORDER = ("stable", "valid", "not valid", "in pieces", "not finite")  # of Verdict.words, in the picture


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found: ``record`` is what ``metrics.json`` holds; a verdict for every molecule."""

    record: dict[str, Any]
    molecules: list[Molecule]
    verdicts: list[Verdict]


def evaluate(
    run: TrainedRun,
    n_samples: int,
    batch_size: int,
    seed: int = 0,
    partitions: Sequence[str] = ("test",),
    nll_molecules: int | None = None,
    nll_draws: int = 1,
    posebusters: int | None = 0,
) -> Evaluation:
    """Sample from a run, judge the samples and estimate the likelihood of held-out molecules.

    The likelihood and the samples start from the same seed each, so that neither changes with the other's size.

    Args:
        run: from :func:`symdiff_plugin.evaluate.trained_run.load_run`.
        n_samples: molecules to sample.
        batch_size: how many of them at once. The likelihood takes as many, up to 100.
        seed: of all random numbers.
        partitions: of which the NLL is wanted, ``test`` or ``val``.
        nll_molecules: molecules of a partition to take; all if None, and 0 leaves the likelihood out.
        nll_draws: draws of R a step for the likelihood; with more than one the record says so under this name.
        posebusters: put the first so many samples to PoseBusters' checks; all if None, and 0 leaves them out.

    Returns:
        The evaluation. Its record holds ``batch_size``, with which and the same seed it can be repeated, and
        ``batch_sizes``, pairs [molecules at once, batches] in the order of sampling: where a GPU ran out of memory
        they grow smaller.

    Raises:
        EvaluationError: memory does not suffice for a single molecule.
        DataError: GEOM-Drugs has an atom without coordinates; ResourceError: PoseBusters is not installed.
    """
    record: dict[str, Any] = {
        "run": str(run.folder),
        "model": run.args.model,
        "dataset": run.args.dataset,
        "checkpoint": run.checkpoint,
        "untrained": run.checkpoint is None,
        "seed": seed,
        "n_samples": n_samples,
        "batch_size": batch_size,
        "diffusion_steps": run.args.diffusion_steps,
        **run.sampler.record(),
        "device": str(run.device),
        **(run.geom.record() if run.geom else {}),
    }
    if recognised := run.arguments.get("recognised"):
        record["recognised"] = recognised
    if nll_molecules != 0:
        for partition in partitions:
            seed_everything(seed)
            # The release's models see how far a batch is padded: it is to be as in their training.
            as_trained = getattr(run.model.dynamics, "depends_on_padding", False)
            size = run.args.batch_size if as_trained else min(batch_size, LIKELIHOOD_BATCH_SIZE)
            nll = negative_log_likelihood(run, partition, nll_molecules, size, nll_draws)
            record.update({f"{partition}_{name}": value for name, value in nll.items()})
        if nll_draws > 1:
            record["nll_draws"] = nll_draws
        few = GAMMA_MOLECULES if nll_molecules is None else min(nll_molecules, GAMMA_MOLECULES)
        if gamma := gamma_worth(run, partitions[0], few, size, seed):
            record["gamma"] = gamma
    known = training_smiles(run.dataset_info) if run.geom is None else None  # EDM measures no novelty on GEOM-Drugs
    seed_everything(seed)
    samples = sample_molecules(run, n_samples, batch_size)
    record["batch_sizes"] = [[size, len(list(equal))] for size, equal in itertools.groupby(samples.batch_sizes)]
    verdicts = judge(samples.molecules, run.dataset_info)
    record.update(summarise(samples.molecules, verdicts, known))
    record["seconds_per_sample"] = samples.seconds / n_samples
    if posebusters != 0:
        record["posebusters"] = bust(samples.molecules[:posebusters])
    return Evaluation(record, samples.molecules, verdicts)


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write ``metrics.json``, ``molecules.xyz``, ``molecules.sdf``, ``samples.png`` and up to 1,000 files in ``xyz/``.

    They replace those of an earlier evaluation all together, once all are on disk.

    Args:
        folder: where; made if missing.

    Returns:
        What was written.

    Raises:
        OSError: something cannot be written; what was there before is untouched.
    """
    molecules, verdicts = evaluation.molecules, evaluation.verdicts
    comments = [f"{verdict.words}; largest fragment {verdict.smiles}" for verdict in verdicts]
    best = sorted(range(len(molecules)), key=lambda i: (_ORDER.index(verdicts[i].words), verdicts[i].pieces))[:PICTURED]
    stable = sum(verdict.words == "stable" for verdict in verdicts)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".evaluation.", dir=folder) as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        write_xyz(new / "molecules.xyz", molecules, comments)
        if len(molecules) <= SINGLE_FILES_UP_TO:
            _write_singles(new / "xyz", molecules, comments)
        write_picture(
            new / "samples.png",
            [molecules[i] for i in best],
            [(verdicts[i].words, verdicts[i].words in ("stable", "valid")) for i in best],
            f"{len(best)} of {len(molecules):,} samples, stable ones first ({stable:,} are stable)",
        )
        write_sdf(new / "molecules.sdf", molecules, verdicts)
        write_json(new / "metrics.json", evaluation.record)
        return put_in_place(new, folder, old, "xyz")


def put_in_place(new: Path, folder: Path, old: Path, singles: str) -> list[Path]:
    """Move all that is in ``new`` into ``folder``, where it replaces what is called the same.

    Args:
        new: on the file system of ``folder``.
        folder: where to.
        old: made here; takes the folder that cannot be replaced.
        singles: name of that folder; without one in ``new``, the one in ``folder`` goes, for it is of other molecules.

    Returns:
        What ``folder`` now has of it.
    """
    old.mkdir()
    if (folder / singles).exists():
        os.replace(folder / singles, old / singles)
    names = sorted(path.name for path in new.iterdir())
    for name in names:
        os.replace(new / name, folder / name)
    return [folder / name for name in names]


def metrics_table(record: dict[str, Any]) -> str:
    """The metrics of ``metrics.json`` as aligned lines of text; of several runs mean +- standard deviation."""
    std = record.get("std") or {}
    lines = []
    for partition, label in PARTITIONS.items():
        if f"{partition}_nll" in record:
            value = record[f"{partition}_nll"]
            if value is None:  # JSON's NaN
                lines.append((f"{label} NLL", "not a number"))
                continue
            several = std.get(f"{partition}_nll")
            error = record[f"{partition}_nll_standard_error"] if several is None else several
            spread = "" if error is None else f" +- {error:.2f}"
            count = record[f"{partition}_nll_molecules"]
            draws = ""
            if record.get("nll_draws", 1) > 1:  # the gain is on the same noise: seen where the error above hides it
                draws = f", {record['nll_draws']} draws of R a step: {record[f'{partition}_nll_gain']:.2f} below one's"
            lines.append((f"{label} NLL", f"{value:.2f}{spread} nats ({count:,} molecules{draws})"))
    lines += gamma_lines(record.get("gamma") or {})
    for name, note in (
        ("atom_stability", ""),
        ("molecule_stability", ""),
        ("validity", "  (of the largest fragment, as EDM counts)"),
        ("uniqueness", "  (of the valid)"),
        ("novelty", "  (of the unique)"),
        ("validity_x_uniqueness", ""),
        ("connected", "  (molecules in one piece)"),
        ("valid_connected", ""),
        ("non_finite", ""),
    ):
        if record[name] is not None:
            label = name.replace("_x_", " x ").replace("_", " ").capitalize()
            spread = "" if std.get(name) is None else f" +- {std[name]:.2%}"
            lines.append((label, f"{record[name]:7.2%}{spread}{note}"))
    if "seconds_per_sample" in record:
        count = f"{record['n_samples']:,} samples" + (f" a run, {record['n_runs']} runs" if std else "")
        lines.append(("Seconds a sample", f"{record['seconds_per_sample']:.4g} ({count})"))
    if "posebusters" in record:
        lines += posebusters_lines(record["posebusters"], std.get("posebusters"))
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"  {label:{width}s}  {value}" for label, value in lines)


def _write_singles(folder: Path, molecules: Sequence[Molecule], comments: Sequence[str]) -> None:
    folder.mkdir()
    digits = len(str(len(molecules) - 1))
    for index, frame in enumerate(zip(molecules, comments, strict=True)):
        (folder / f"{index:0{digits}d}.xyz").write_text(format_frame(*frame), encoding="utf-8")
