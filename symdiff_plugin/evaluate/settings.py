"""What decides the results of an evaluation run: if it is equal, the results are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from symdiff_plugin.data.integrity import content_hash, data_hash
from symdiff_plugin.evaluate.posebusters import posebusters_version
from symdiff_plugin.evaluate.trained_run import TrainedRun

# Of the training's arguments: places and devices, whose content or choice is recorded by itself.
ELSEWHERE = ("datadir", "data_file", "device", "cuda")


def settings_of(
    run: TrainedRun,
    n_samples: int,
    batch_size: int | None,
    partitions: Sequence[str],
    nll_molecules: int | None,
    nll_draws: int = 1,
    posebusters: int | None = 0,
) -> dict[str, Any]:
    """The settings of every run of an evaluation, the seed apart; of ``batch_size`` None that it is yet to be chosen.

    Weights, configuration and data are there by content, wherever they lie: ``weights_sha256`` over the loaded
    tensors, be they from a file or initial ones; ``config_sha256`` over the arguments of the training;
    ``data_sha256`` over the checksums of the arrays of QM9's splits, or
    :meth:`~symdiff_plugin.evaluate.geom_data.GeomData.fingerprint`.

    Raises:
        DataError: GEOM-Drugs has an atom without coordinates; ResourceError: PoseBusters is wanted, and not installed.
    """
    kept = {name: value for name, value in run.arguments.items() if name not in ELSEWHERE}
    settings = {
        "weights_sha256": content_hash({name: v.cpu().numpy() for name, v in run.model.state_dict().items()}),
        "config_sha256": hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest(),
        "data_sha256": data_hash(run.args.datadir) if run.geom is None else run.geom.fingerprint(),
        "diffusion_steps": run.args.diffusion_steps,
        "n_samples": n_samples,
        "batch_size": batch_size,
        "batch_size_auto": batch_size is None,
        "partitions": sorted(partitions) if nll_molecules != 0 else [],
        "nll_molecules": "all" if nll_molecules is None else nll_molecules,
        "nll_draws": nll_draws,
        "device": run.device.type,
        "torch": str(torch.__version__),
    }
    if not run.sampler.is_edms(run.args.diffusion_steps):
        settings |= run.sampler.record()
    if posebusters != 0:
        settings["posebusters"] = "all" if posebusters is None else posebusters
        settings["posebusters_version"] = posebusters_version()
    return settings


def difference(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first setting in which two runs differ, in words; None if they agree."""
    for name in (*wanted, *recorded):
        old, new = recorded.get(name), wanted.get(name)
        if old != new:
            if name.endswith("_sha256"):
                return f"other {name.removesuffix('_sha256')}"
            return f"{name} {old}, not {new}"
    return None
