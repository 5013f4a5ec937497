"""A pretrained model from the folder of a run, of ours or of the authors' release."""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from symdiff_plugin.common.errors import EvaluationError
from symdiff_plugin.common.files import read_json, replacing, write_json
from symdiff_plugin.common.weights import mismatch
from symdiff_plugin.data.geom.dataset_info import of_run
from symdiff_plugin.data.schema import DataError
from symdiff_plugin.edm import import_edm
from symdiff_plugin.model.dynamics import build_dynamics
from symdiff_plugin.pretrained import FOLDER, FORMAT, Pretrained, PretrainedError, architecture_of, assemble
from symdiff_plugin.process.probabilistic_model import DEFAULTS, DIFFUSION
from symdiff_plugin.process.schedule import schedule_of
from symdiff_plugin.training.arguments import architecture_overrides, is_plugin_model
from symdiff_plugin.training.checkpoint import FILE_NAME, load_checkpoint
from symdiff_plugin.training.history import HISTORY, TRAIN_LOSS, read_rows, validation
from symdiff_plugin.training.released import read_configuration
from symdiff_plugin.training.size_histogram import histogram
from symdiff_plugin.training.stored_run import read_arguments, read_weights

WEIGHTS = "generative_model_ema.npy"
METRICS = "metrics.json"
_DRIFT = 0.05  # of gamma in an average; see _check
_PREFIX, _GAMMA, _BUFFER = "dynamics.", "gamma.gamma", "buffer"


def export(run: Path, name: str, folder: Path = FOLDER, weights: str = WEIGHTS) -> list[Path]:
    """Write ``NAME.safetensors`` and ``NAME.json``.

    Args:
        run: ``outputs/NAME``, with ``config.json`` (or ``args.pickle``), the weights and, where they are,
            ``history.jsonl`` and ``metrics.json``.
        name: what the model shall be called: small letters, digits and hyphens.
        folder: where the files go.
        weights: ``generative_model_ema.npy``, the moving average of the epoch of the best validation NLL, or
            ``checkpoint.pt``, that of the last.

    Returns:
        What was written.

    Raises:
        PretrainedError: the run is not one that this package can sample from.
        EvaluationError: its files are missing or damaged.
        EdmError: EDM, which knows the histogram of sizes, is missing.
        OSError: a file cannot be written; what was there before is untouched.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise PretrainedError(f"--name {name!r}: use small letters, digits and hyphens, as in qm9-mini")
    return store(folder, name, *model_of(run, weights))


def from_run(
    run: Path, weights: str = WEIGHTS, device: torch.device | str = "cpu", precision: str = "fp32"
) -> Pretrained:
    """The model of a run, ready to sample, as if it had been exported and loaded.

    Args:
        run, weights: as for :func:`export`.
        device, precision: as for :func:`symdiff_plugin.pretrained.load`.

    Raises:
        PretrainedError, EvaluationError, EdmError: as :func:`export` does.
    """
    state, card = model_of(run, weights)
    return assemble(run.resolve().name, {"weights": pack(state)[1], **card}, state, device, precision)


def model_of(run: Path, weights: str = WEIGHTS) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict of a run's network and its card, save ``format``, ``name`` and ``weights``; see :func:`export`."""
    args = read_arguments(run)
    if not is_plugin_model(args):
        raise PretrainedError(f"{run} is a run of {args.model}: only the plugin's models can be exported")
    if args.conditioning:
        raise PretrainedError(
            f"{run} is a conditional model ({', '.join(args.conditioning)}): these are sampled with EDM alone, by "
            "python -m symdiff_plugin.evaluate"
        )
    state = read_weights(run, weights, last="--checkpoint last")
    edms = import_edm("configs.datasets_config").get_dataset_info(args.dataset, args.remove_h)
    try:
        dataset_info = of_run(args, edms)
    except DataError as error:
        raise PretrainedError(str(error)) from error
    atom_types = list(dataset_info["atom_decoder"])
    try:
        dynamics = build_dynamics(args.model, len(atom_types) + int(args.include_charges), **_settings(args))
        gamma = schedule_of(args.diffusion_noise_schedule, args.diffusion_steps, args.diffusion_noise_precision).gamma
    except (AttributeError, TypeError, ValueError) as error:
        raise PretrainedError(f"{run / 'config.json'} is not a model that can be exported ({error})") from error
    sizes = histogram(args, dataset_info["n_nodes"])
    _check(state, gamma, dynamics.state_dict(), run / weights)
    card = {
        "model": args.model,
        "architecture": architecture_of(dynamics),
        "dataset": args.dataset,
        "remove_h": bool(args.remove_h),
        "atom_types": atom_types,
        "include_charges": bool(args.include_charges),
        "normalize_factors": list(args.normalize_factors),
        "n_nodes": {str(size): count for size, count in sizes.items()},  # in EDM's order
        "diffusion": {
            "steps": args.diffusion_steps,
            "noise_schedule": args.diffusion_noise_schedule,
            "noise_precision": args.diffusion_noise_precision,
        },
        **_process(args),
        "training": _training(run, args.batch_size, args.ema_decay, weights),
        "metrics": _metrics(run, weights),
    }
    if recognised := getattr(args, "recognised", None):
        card["recognised"] = recognised
    return {key: state[_PREFIX + key] for key in dynamics.state_dict()}, card


def store(folder: Path, name: str, weights: dict[str, Tensor], card: dict[str, Any]) -> list[Path]:
    """Write the two files of a model, both or neither; what the card says of the weights is added here.

    Args:
        folder: where; made if missing.
        name: of the model.
        weights: the state dict of the network; stored as float32.
        card: what :func:`symdiff_plugin.pretrained.load` reads, save ``format``, ``name`` and ``weights``.

    Raises:
        OSError: a file cannot be written; what was there before is untouched.
    """
    content, about = pack(weights)
    path = folder / f"{name}.safetensors"
    about = {"file": path.name, **about}
    with replacing(path, "wb") as file:
        file.write(content)
        # Inside: if the card cannot be written, the weights are not put in place either.
        write_json(folder / f"{name}.json", {"format": FORMAT, "name": name, "weights": about, **card})
    return [path, folder / f"{name}.json"]


def pack(weights: dict[str, Tensor]) -> tuple[bytes, dict[str, Any]]:
    """A state dict as the content of a safetensors file, in float32, and what a card says of it."""
    content = safetensors.torch.save({key: weights[key].float().contiguous() for key in sorted(weights)})
    return content, {
        "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "dtype": "float32",
        "numbers": sum(value.numel() for value in weights.values()),
    }  # fmt: skip


def _settings(args: Any) -> dict[str, Any]:
    return {**architecture_overrides(args), "precision": "fp32"}


def _process(args: Any) -> dict[str, Any]:
    """What the card says of a process that is not EDM's diffusion."""
    if getattr(args, "probabilistic_model", DIFFUSION) == DIFFUSION:
        return {}
    own = {name: getattr(args, name) for name, (of, _) in DEFAULTS.items() if of == args.probabilistic_model}
    return {"probabilistic_model": args.probabilistic_model, **own}


def _check(state: dict[str, Tensor], gamma: Tensor, expected: dict[str, Tensor], path: Path) -> None:
    if _GAMMA not in state or state[_GAMMA].shape != gamma.shape:
        raise PretrainedError(f"{path} lacks EDM's table of {len(gamma)} gammas: it is not of this run")
    # EDM averages the table too, a constant, and rounding moves it: by up to 2^-24 |gamma| / (1 - beta), 1e-2 at a beta
    # of 0.9999. Ours is the table that the network was trained with. Precision 1e-4 instead of 1e-5 would be 2.3 away.
    if not torch.allclose(state[_GAMMA].float(), gamma, rtol=0, atol=_DRIFT):
        raise PretrainedError(f"{path} was trained with another noise schedule than config.json says")
    found = {key.removeprefix(_PREFIX): value for key, value in state.items() if key not in (_GAMMA, _BUFFER)}
    odd = mismatch(expected, found)
    if odd is not None:
        raise PretrainedError(f"{path} does not fit the model of config.json: {odd}")


def _training(run: Path, batch_size: int, ema_decay: float, weights: str) -> dict[str, Any]:
    """How the weights came about: up to the epoch of the best validation NLL, when EDM last saved them, or the last."""
    config = read_configuration(run)
    keys = ("command", "seed", "versions", "device")
    record = {key: config.get(key) for key in keys}
    record["command"] = _portable(config.get("command") or "")
    record["commit"] = (config.get("versions") or {}).get("commit")
    record |= {"batch_size": batch_size, "ema_decay": ema_decay, "weights": weights}
    rows = _rows(run / HISTORY)
    epochs = _epochs(run, rows, weights)
    rows = [row for row in rows if row["epoch"] < epochs]
    if rows:
        record["epochs"] = epochs
        record["steps"] = _steps(run, epochs)
        for key in ("seconds", "train_seconds", "train_cpu_seconds"):  # the first counts the evaluations too
            spent: list[Any] = [row.get(key) for row in rows]
            record[key] = None if None in spent else round(sum(spent), 1)
        record["lr"] = _learning_rates(rows)
        kind = "loss" if "val_loss" in rows[-1] else "nll"
        record |= {key: rows[-1].get(key) for key in ("train_loss", f"val_{kind}", f"test_{kind}")}
    return record


def _epochs(run: Path, rows: list[dict[str, Any]], weights: str) -> int:
    """Epochs of training behind the weights; 0 where the history has none that was tested."""
    if weights == FILE_NAME:
        return load_checkpoint(run / FILE_NAME, mmap=True)["epoch"]
    tested = [(value, row["epoch"]) for row in rows if (value := validation(row)) is not None]
    return min(tested)[1] + 1 if tested else 0


def _portable(command: str) -> str:
    """The command without the folders of the machine that it ran on."""
    return shlex.join(Path(word).name if Path(word).is_absolute() else word for word in shlex.split(command))


def _learning_rates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The learning rates in turn, each with its number of epochs; None where the history does not say."""
    phases = itertools.groupby(rows, key=lambda row: row.get("lr"))
    return [{"lr": lr, "epochs": len(list(epochs))} for lr, epochs in phases]


def _steps(run: Path, epochs: int) -> int | None:
    """Optimiser steps of the first ``epochs`` epochs."""
    rows = [row for row in _rows(run / TRAIN_LOSS) if row["epoch"] < epochs]
    return rows[-1]["step"] if rows else None


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return read_rows(path) if path.is_file() else []
    except ValueError as error:
        raise PretrainedError(str(error)) from error


def _metrics(run: Path, weights: str) -> dict[str, Any] | None:
    """What ``python -m symdiff_plugin.evaluate`` measured of these weights, by EDM's rules; None if it did not."""
    path = run / METRICS
    if not path.is_file():
        return None
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{error}: evaluate again") from error
    if record.get("checkpoint", weights) != weights:
        raise EvaluationError(f"{path} is of {record['checkpoint']}: evaluate again, with --checkpoint {weights}")
    return {key: value for key, value in record.items() if key not in ("run", "runs", "batch_sizes")}
