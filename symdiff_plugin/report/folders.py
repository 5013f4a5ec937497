"""Folders of runs, read for the report: ``config.json``, ``metrics.json``, learning curves and molecules."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeGuard

from symdiff_plugin.common.files import read_json
from symdiff_plugin.data.schema import SPLIT_SIZES
from symdiff_plugin.molecules.molecule import Molecule, read_xyz
from symdiff_plugin.presets import (
    EGNN_BASELINES,
    EGNN_GEOM_BASELINES,
    PRESETS,
    Architecture,
    Training,
    get_architecture,
)
from symdiff_plugin.process import probabilistic_model, sampler
from symdiff_plugin.training.history import HISTORY, TRAIN_LOSS, read_rows
from symdiff_plugin.training.released import read_configuration
from symdiff_plugin.training.run_config import CONFIG

GEOM_CONFORMERS = 6_922_516  # of GEOM-Drugs with 30 a molecule: the length of EDM's permutation

# Arguments in which repetitions of one experiment may differ: names, places, what is printed and kept, where it ran.
DECIDES_NOTHING = {
    "seed", "exp_name", "resume", "resume_from", "start_epoch", "init_from", "init_from_sha256", "datadir",
    "data_file", "data_sha256", "num_workers", "wandb_usr", "no_wandb", "online", "n_report_steps",
    "visualize_every_batch", "n_stability_samples", "save_model", "keep_checkpoints", "cuda", "no_cuda", "device", "dp",
    "debug_checks", "fused", "checkpoint_minutes", "overwrite",
}  # fmt: skip

# What a run had that lacks the argument, for it is older; None is none, too.
_BEFORE: dict[str, Any] = {
    **{each.name: each.default for each in (*fields(Architecture), *fields(Training))},
    **{name: value for name, (_, value) in probabilistic_model.DEFAULTS.items()},
}

_BASELINES = {"qm9": EGNN_BASELINES, "geom": EGNN_GEOM_BASELINES}


class ReportError(ValueError):
    """Input that no report can be made of; the message is one line, with the remedy."""


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """One folder.

    Attributes:
        folder: where it was read from.
        key: the row it belongs to: a preset, an EGNN baseline, ``dit_ft``, ``data``; None if it is none of these,
            such as a preset whose sizes were overridden, or a model of a data set of one's own.
        label: what to call it.
        config: ``config.json``; empty for an evaluation of the data.
        metrics: ``metrics.json``.
        history: lines of ``history.jsonl``, one an epoch.
        losses: lines of ``train_loss.jsonl``.
        molecules: samples with finite coordinates, from ``molecules.xyz``.
        comments: their comment lines; each begins with the verdict.
    """

    folder: Path
    key: str | None
    label: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    losses: list[dict[str, Any]]
    molecules: list[Molecule]
    comments: list[str]

    @property
    def dataset(self) -> str:
        """``qm9``, or ``geom``: GEOM-Drugs or data in its format."""
        found = self.metrics.get("dataset") if self.is_data else (self.config.get("args") or {}).get("dataset")
        return "geom" if found == "geom" else "qm9"

    @property
    def data(self) -> tuple[str, str | None]:
        """The data: :attr:`dataset`, and the name of a data set of one's own."""
        return self.dataset, self.metrics.get("data_set")

    @property
    def is_data(self) -> bool:
        return self.metrics.get("kind") == "data"

    @property
    def seed(self) -> int | None:
        return self.config.get("seed")

    @property
    def parameters(self) -> dict[str, int]:
        """Trainable parameters: ``total`` and, for the plugin's models, ``epsilon_theta`` and ``f_theta``."""
        return self.config.get("parameters") or {}

    @property
    def epoch_seconds(self) -> float | None:
        """Mean seconds of training an epoch took, its evaluation not counted; None without a history."""
        seconds = [row["train_seconds"] for row in self.history if is_number(row.get("train_seconds"))]
        return statistics.fmean(seconds) if seconds else None

    @property
    def on_cpu(self) -> bool:
        return str(self.config.get("device", "")).startswith("cpu")

    @property
    def training_hours(self) -> list[float | None]:
        """Hours of training, evaluations not counted, at the end of each epoch; None from an epoch on that lacks them.

        On a CPU they are the process's own, over all its cores, which do not depend on what else the machine did.
        """
        key, total, hours = "train_cpu_seconds" if self.on_cpu else "train_seconds", 0.0, []
        for row in self.history:
            total += row[key] if is_number(row.get(key)) else math.nan
            hours.append(None if math.isnan(total) else total / 3600)
        return hours

    @property
    def note(self) -> str:
        """What a reader must know to compare this run with the paper's: folder, seed, lengths, samples, commit."""
        parts = [self.folder.name]
        metrics, args = self.metrics, self.config.get("args", {})
        if self.is_data:
            parts.append(f"{metrics.get('partition', '')} split".strip())
        elif "recognised" in self.config:  # its history stayed with whoever trained it
            parts += [self.config["recognised"], f"T = {args.get('diffusion_steps')}"]
        else:
            parts.append(f"seed {self.seed}")
            parts.append(f"{len(self.history):,} of {args.get('n_epochs')} epochs{self._unlike_preset('n_epochs')}")
            parts.append(f"T = {args.get('diffusion_steps')}{self._unlike_preset('diffusion_steps')}")
            trained_on = (self.config.get("molecules") or {}).get("train")
            if trained_on not in (None, SPLIT_SIZES["train"]):
                parts.append(f"trained on {trained_on:,} of QM9's {SPLIT_SIZES['train']:,} molecules")
        if self.dataset == "geom":
            parts += self._data_of_geom(metrics if self.is_data else args)
        if is_number(metrics.get("n_samples")):
            parts.append(f"{metrics['n_samples']:,} samples{self._by_another_sampler(args)}")
        n_runs = metrics.get("n_runs", 1)
        parts.append(f"{n_runs} evaluation run{'s' * (n_runs != 1)}")
        if metrics.get("nll_draws", 1) > 1:
            parts.append(f"NLL of {metrics['nll_draws']} draws")
        parts += self._beside_edms_metrics()
        if metrics.get("untrained"):
            parts.append("UNTRAINED")
        commit = (self.config.get("versions") or {}).get("commit")
        if commit:
            parts.append(f"commit {commit[:7]}{'-dirty' * commit.endswith('-dirty')}")
        return ", ".join(parts)

    @property
    def repeats(self) -> str:
        """Equal for two runs that are one experiment repeated: they differ in the seed and in what decides nothing."""
        args = {name: value for name, value in self.config.get("args", {}).items() if name not in DECIDES_NOTHING}
        args = {name: value for name, value in args.items() if value is not None and value != _BEFORE.get(name)}
        names = ["n_samples", "n_runs", "nll_draws", "untrained"]
        if self._by_another_sampler(self.config.get("args", {})):
            names += sampler.KINDS
        evaluation = {name: self.metrics.get(name) for name in names}
        return json.dumps([self.config.get("molecules"), args, evaluation], sort_keys=True)

    def _by_another_sampler(self, args: dict[str, Any]) -> str:
        """By which sampler, and in how many calls of the network, where it was not EDM's own, the paper's."""
        name, steps = (self.metrics.get(key) for key in ("sampler", "sampling_steps"))
        usual = name == sampler.EDMS and steps == args.get("diffusion_steps")
        return "" if name is None or usual else f" by {name} in {steps} calls"

    def _beside_edms_metrics(self) -> list[str]:
        """What EDM's validity leaves unsaid: of GEOM-Drugs it is of the largest fragment, with single bonds alone."""
        parts = []
        if self.dataset == "geom" and is_number(self.metrics.get("connected")):
            parts.append(f"{self.metrics['connected']:.2%} in one piece")
        busted = self.metrics.get("posebusters") or {}
        if is_number(busted.get("passes_all")):
            parts.append(f"{busted['passes_all']:.2%} of {busted.get('n_molecules')} pass PoseBusters")
        return parts

    def _data_of_geom(self, source: dict[str, Any]) -> list[str]:
        """Which data, if they are not GEOM-Drugs, and which split, if it is not the paper's."""
        parts = [] if self.metrics.get("data_set") is None else [f"data set {self.metrics['data_set']}"]
        conformers = self.metrics.get("data_conformers")
        if conformers != GEOM_CONFORMERS:
            count = f"{conformers:,}" if is_number(conformers) else "an unknown number of"
            parts.append(f"{count} conformers, not the {GEOM_CONFORMERS:,} of GEOM-Drugs")
        split = source.get("split") or "official"
        if split != "official":
            parts.append(f"split by {split} with seed {source.get('split_seed')}, not the official one")
        return parts

    def _unlike_preset(self, flag: str) -> str:
        """What the row's preset has for a flag of the training, if this run has another value."""
        if self.key in PRESETS:
            defaults = PRESETS[self.key].training_flags(self.dataset)
        else:
            defaults = _BASELINES[self.dataset].get(self.key or "", {})
        wanted = defaults.get(flag)
        return "" if wanted in (None, self.config["args"].get(flag)) else f" (the preset: {wanted})"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a finite number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_runs(folders: Sequence[str | Path]) -> tuple[list[EvaluatedRun], list[tuple[Path, str]]]:
    """Read every folder that can be read.

    Args:
        folders: ``outputs/NAME``, each a run with its evaluation, or an evaluation of the data.

    Returns:
        The runs, and (folder, reason) for each that was left out.
    """
    runs, skipped = [], []
    for folder in dict.fromkeys(map(Path, folders)):
        try:
            runs.append(read_run(folder))
        except ReportError as error:
            skipped.append((folder, str(error)))
    return runs, skipped


def read_run(folder: Path) -> EvaluatedRun:
    """Read one folder.

    Raises:
        ReportError: it is no evaluated run on QM9 or GEOM-Drugs, or a file of it is damaged.
    """
    if not folder.is_dir():
        raise ReportError(f"{folder} is no folder")
    metrics_path, config_path = folder / "metrics.json", folder / "config.json"
    if not metrics_path.is_file():
        if config_path.is_file():
            raise ReportError(f"not evaluated: python -m symdiff_plugin.evaluate {folder}")
        raise ReportError("no metrics.json and no config.json: not the folder of a run")
    metrics = _read_json(metrics_path)
    for name, kind in (
        ("std", dict), ("runs", list), ("n_runs", int), ("nll_draws", int), ("posebusters", dict),
    ):  # fmt: skip
        if not isinstance(metrics.get(name, kind()), kind):
            raise ReportError(f"{metrics_path} is damaged ({name!r} is no {kind.__name__}): evaluate again")
    own = metrics.get("data_set")  # of another data set than the paper's: no row of its tables
    if metrics.get("kind") == "data":
        key, label = ("data", "Data") if own is None else (None, f"Data, {own}")
        return EvaluatedRun(folder, key, label, {}, metrics, [], [], *_molecules(folder))
    try:
        config = read_configuration(folder)
    except FileNotFoundError as error:
        raise ReportError(f"no {CONFIG}: not a run of the patched main_qm9.py or main_geom_drugs.py") from error
    except (OSError, ValueError) as error:
        raise ReportError(str(error)) from error
    dataset = config["args"].get("dataset")
    if dataset not in ("qm9", "geom") or config["args"].get("conditioning"):
        raise ReportError(f"the tables are for unconditional models of qm9 and geom; this is {dataset}, or conditional")
    key, label = _identify(config)
    if own is not None:
        key, label = None, f"{label}, {own}"
    history, losses = (_history(folder / name) for name in (HISTORY, TRAIN_LOSS))
    return EvaluatedRun(folder, key, label, config, metrics, history, losses, *_molecules(folder))


def _identify(config: dict[str, Any]) -> tuple[str | None, str]:
    """Row and label. A preset with other sizes than its own is not the paper's model, and gets no row of its."""
    model, args = config["model"], config["args"]
    if model in PRESETS:
        # How it is computed is not which model it is.
        found = {name: value for name, value in (config.get("architecture") or {}).items() if name != "precision"}
        compat, label = found.get("compat", "paper"), PRESETS[model].label
        sizes = asdict(get_architecture(model, compat=compat))
        other = {name for name, value in found.items() if sizes.get(name) != value}
        if other and other <= {"group", "base"}:
            return None, ", ".join([label, *(found[name] for name in sorted(other))])
        if other:
            return None, f"{label}, other sizes"
        return (model, label) if compat == "paper" else (None, f"{label}, {compat}")
    if model == "egnn_dynamics":
        for name, flags in _BASELINES[args["dataset"]].items():
            if all(args.get(size) == flags[size] for size in ("nf", "n_layers")):
                return name, "EDM" + name.removeprefix("edm").replace("_plus", "+").replace("_tiny", ", tiny")
        return None, f"EDM, n_f {args.get('nf')}, n_l {args.get('n_layers')}"
    return model, model


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ReportError(f"{error}: make it again") from error


def _history(path: Path) -> list[dict[str, Any]]:
    try:
        return read_rows(path) if path.is_file() else []
    except (OSError, ValueError) as error:
        raise ReportError(str(error)) from error


def _molecules(folder: Path) -> tuple[list[Molecule], list[str]]:
    path = folder / "molecules.xyz"
    if not path.is_file():
        return [], []
    try:
        molecules, comments = read_xyz(path)
    except (OSError, ValueError) as error:
        raise ReportError(f"{' '.join(str(error).split())}: evaluate again") from error
    pairs = [(m, c) for m, c in zip(molecules, comments, strict=True) if m.is_finite and len(m)]
    return [m for m, _ in pairs], [c for _, c in pairs]
