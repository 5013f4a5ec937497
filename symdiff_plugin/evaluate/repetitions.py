"""Several evaluation runs of one trained model, each kept as it ends, and their mean and standard deviation.

The paper evaluates a trained model three times. Run k has the seed ``seed + k`` and a folder of its own,
``evaluation/run_SEED``, which is renamed into place once everything in it is on disk. An evaluation that was killed
goes on with its next run, and since the summary is always made from those folders, it comes out the same.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from symdiff_plugin.common.files import write_json
from symdiff_plugin.evaluate.batch_size import choose_batch_size
from symdiff_plugin.evaluate.evaluation import evaluate, put_in_place, write_evaluation
from symdiff_plugin.evaluate.settings import difference, settings_of
from symdiff_plugin.evaluate.trained_run import TrainedRun
from symdiff_plugin.process import sampler


def evaluate_runs(
    run: TrainedRun,
    n_runs: int = 1,
    seed: int = 0,
    n_samples: int = 10_000,
    batch_size: int | None = None,
    partitions: Sequence[str] = ("test",),
    nll_molecules: int | None = None,
    nll_draws: int = 1,
    suffix: str = "",
    say: Callable[[str], None] = print,
    posebusters: int | None = 0,
) -> tuple[dict[str, Any], list[Path]]:
    """Evaluate ``n_runs`` times and write the summary and the molecules of the first run into the run's folder.

    Of several runs, one that is kept from earlier is taken if all that decides its results is the same
    (:func:`~symdiff_plugin.evaluate.settings.settings_of`). A single run is always computed.

    Args:
        run: from :func:`symdiff_plugin.evaluate.trained_run.load_run`.
        n_runs: how many.
        seed: of the first; the others have the next ones.
        n_samples, batch_size, partitions, nll_molecules, nll_draws, posebusters: see
            :func:`symdiff_plugin.evaluate.evaluation.evaluate`. A batch size that is chosen from memory is chosen once
            for all runs, those kept from earlier included.
        suffix: put behind each name, such as ``_untrained``.
        say: is told what is taken from earlier and what is not.

    Returns:
        The summary, see :func:`summary_of_repetitions`, and what was written.

    Raises:
        EvaluationError, DataError: see :func:`symdiff_plugin.evaluate.evaluation.evaluate`.
        OSError: something cannot be written; the runs that have ended are kept.
    """
    seeds = range(seed, seed + n_runs)
    kept = kept_runs(run.folder, suffix)
    settings = settings_of(run, n_samples, batch_size, partitions, nll_molecules, nll_draws, posebusters)
    folders = [kept / f"run_{one_seed}" for one_seed in seeds]
    earlier = [_settings_of_kept(folder) if n_runs > 1 else None for folder in folders]
    if batch_size is None:
        settings["batch_size"] = _recorded_batch_size(earlier, settings) or choose_batch_size(run)
    for number, (one_seed, folder, recorded) in enumerate(zip(seeds, folders, earlier, strict=True), 1):
        odd = None if recorded is None else difference(recorded, settings)
        if n_runs > 1:
            how = f", computed anew: {folder} has {odd}" if odd else f", reused from {folder}" if recorded else ""
            say(f"run {number} of {n_runs}: seed {one_seed}{how}")
        if odd or not recorded:
            found = evaluate(
                run, n_samples, settings["batch_size"], one_seed, partitions, nll_molecules, nll_draws, posebusters
            )
            found.record.update(batch_size_auto=settings["batch_size_auto"], settings=settings)
            _keep(partial(write_evaluation, found), folder)
    record = summary_of_repetitions([_read(folder) for folder in folders])
    return record, _publish(folders[0], record, run.folder, suffix)


def kept_runs(folder: Path, suffix: str = "") -> Path:
    """The folder, in a run's, that keeps its evaluation runs."""
    return folder / f"evaluation{suffix}"


def summary_of_repetitions(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One record of several runs: mean and sample standard deviation (ddof 1) of each metric.

    Args:
        records: of each run, as ``metrics.json`` holds it. A metric is whatever is a floating-point number in any of
            them, also one level down and more (``posebusters``); where it is missing or None in another, mean and
            deviation are None.

    Returns:
        The first record with means in place of the metrics, and ``n_runs``, ``runs`` (the records) and, for two runs
        and more, ``std``.
    """
    chosen = ("settings", *sampler.KINDS)  # not measured, whatever type it has
    result, std = _mean_and_deviation([{k: v for k, v in one.items() if k not in chosen} for one in records])
    result = {**records[0], **result, "n_runs": len(records)}
    if len(records) > 1:
        result["std"] = std
    result["runs"] = [dict(record) for record in records]
    return result


def _mean_and_deviation(records: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first record with means for its metrics, and their deviations in the same places."""
    mean, std = dict(records[0]), dict[str, Any]()
    for name in records[0]:
        values: list[Any] = [record.get(name) for record in records]
        if all(isinstance(value, dict) for value in values):
            mean[name], deviations = _mean_and_deviation(values)
            if deviations:
                std[name] = deviations
        elif any(isinstance(value, float) for value in values):
            known = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
            mean[name] = statistics.fmean(values) if known else None
            if len(records) > 1:
                std[name] = statistics.stdev(values) if known else None
    return mean, std


def _settings_of_kept(folder: Path) -> dict[str, Any] | None:
    """The settings of a kept run; None where there is none, or none that can be read."""
    try:
        settings = _read(folder)["settings"]
        whole = isinstance(settings, dict) and (folder / "molecules.xyz").is_file()
        return settings if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def _recorded_batch_size(earlier: Sequence[Mapping[str, Any] | None], settings: Mapping[str, Any]) -> int | None:
    """The batch size that was chosen for the first of the kept runs that agrees in everything else."""
    for recorded in filter(None, earlier):
        size = recorded.get("batch_size")
        if difference(recorded, {**settings, "batch_size": size}) is None:
            return size
    return None


def _keep(fill: Callable[[Path], Any], folder: Path) -> None:
    """Let ``fill`` write into a new folder, which then takes the place of ``folder``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".run.", dir=folder.parent) as temporary:
        new = Path(temporary) / "new"
        fill(new)
        if folder.exists():
            os.replace(folder, Path(temporary) / "old")
        os.replace(new, folder)


def _publish(first: Path, record: dict[str, Any], folder: Path, suffix: str) -> list[Path]:
    """Put the files of the run ``first`` and the summary into ``folder``, all together once all are on disk."""
    with tempfile.TemporaryDirectory(prefix=".evaluation.", dir=folder) as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        for path in first.iterdir():
            target = new / f"{path.stem}{suffix}{path.suffix}"
            if path.is_dir():
                shutil.copytree(path, target)
            elif path.name != "metrics.json":
                shutil.copyfile(path, target)
        write_json(new / f"metrics{suffix}.json", record)
        return put_in_place(new, folder, Path(temporary) / "old", f"xyz{suffix}")
