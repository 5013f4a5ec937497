"""A trained run, rebuilt from its folder ``outputs/NAME`` by EDM's own ``get_model``.

The arguments come from ``config.json`` or, of runs that have none (EDM's and those of the authors' release), from
``args.pickle`` by a reader that runs nothing in it. The weights are read as tensors alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from symdiff_plugin.common.devices import usable_device
from symdiff_plugin.common.errors import EvaluationError, first_line
from symdiff_plugin.common.weights import mismatch
from symdiff_plugin.data import DataError, check_datadir
from symdiff_plugin.data.geom.flags import DATA_FILE
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.geom_data import GeomData, load_geom
from symdiff_plugin.process.sampler import Sampler, chosen
from symdiff_plugin.training import checkpoint as checkpoints
from symdiff_plugin.training.arguments import seed_everything
from symdiff_plugin.training.stored_run import read_arguments, read_weights


@dataclass
class TrainedRun:
    """What evaluating needs of a run.

    Attributes:
        folder: ``outputs/NAME``.
        args: the arguments of the training, as EDM's functions take them.
        model: EDM's diffusion model, in eval mode.
        nodes_dist: EDM's distribution of the number of atoms.
        prop_dist: EDM's distribution of the properties, normalised; None for an unconditional model.
        property_norms: mean and mean absolute deviation of each property; empty for an unconditional model.
        dataset_info: EDM's description of the data set, with ``datadir``.
        loaders: EDM's data loaders by partition.
        checkpoint: name of the file the weights are from; None for initial weights.
        geom: the data set of a run of ``main_geom_drugs.py``; None for QM9.
        arguments: those of the training as they were recorded, places and devices included.
    """

    folder: Path
    args: argparse.Namespace
    model: Any
    nodes_dist: Any
    prop_dist: Any
    property_norms: dict[str, Any]
    dataset_info: dict[str, Any]
    loaders: Mapping[str, DataLoader]
    checkpoint: str | None
    geom: GeomData | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.args.device

    @property
    def sampler(self) -> Sampler:
        """That of its samples."""
        return Sampler.of(vars(self.args), self.args.diffusion_steps)


def load_run(
    folder: str | Path,
    untrained: bool = False,
    checkpoint: str | None = None,
    datadir: str | Path | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    data_file: str | Path | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> TrainedRun:
    """Rebuild a run.

    Args:
        folder: where ``main_qm9.py`` or ``main_geom_drugs.py`` put it, ``outputs/NAME``.
        untrained: leave the model at initial weights, drawn afresh with ``seed``.
        checkpoint: file of weights in ``folder``, or ``checkpoint.pt`` for those of the last epoch; EDM's best average
            (or model, without EMA) if not given.
        datadir: where QM9 is now, if not where it was during training.
        device: ``cpu`` or ``cuda``; a GPU if there is one, by default.
        batch_size: of the data loaders; the training's if not given.
        seed: of everything random here.
        data_file: where GEOM-Drugs' array is now, if not where it was during training.
        sampling: flags of the sampler; those of the training if not given.

    Raises:
        EvaluationError: the folder, its configuration, its weights or the data are missing or unusable.
        EdmError: EDM is missing or unpatched.
    """
    folder = Path(folder)
    args = read_arguments(folder)
    arguments = dict(vars(args))
    vars(args).update(chosen(sampling or {}, arguments))
    try:
        Sampler.of(vars(args), args.diffusion_steps)
    except ValueError as error:
        raise EvaluationError(first_line(error)) from error
    if recognised := arguments.get("recognised"):
        print(f"{folder}: recognised {recognised}")
    name = None if untrained else checkpoint or checkpoints.best_weights(args)
    weights = None if name is None else read_weights(folder, name)
    args.device = usable_device(device)
    args.cuda = args.device.type == "cuda"
    args.datadir = str(datadir or getattr(args, "datadir", ""))
    args.batch_size = batch_size or args.batch_size
    if args.dataset == "geom":
        args.data_file = str(data_file or getattr(args, "data_file", None) or DATA_FILE)
    _check_data(args)

    seed_everything(seed)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # EDM prints its noise schedule and more, and copies tensors with a warning
        geom, dataset_info, loaders = _data(args)
        norms: dict[str, Any] = {}
        if args.conditioning:
            norms = import_edm("qm9.utils").compute_mean_mad(loaders, args.conditioning, args.dataset)
        seed_everything(seed)  # the initial weights do not depend on the data
        try:
            model, nodes_dist, prop_dist = import_edm("qm9.models").get_model(
                args, args.device, dataset_info, loaders["train"]
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise EvaluationError(
                f"{folder / 'config.json'} does not describe a model ({first_line(error)}): train again"
            ) from error
    if prop_dist is not None:
        prop_dist.set_normalizer(norms)
    if weights is not None:
        _fit(model, weights, folder / str(name))
    model.to(args.device).eval()
    return TrainedRun(
        folder, args, model, nodes_dist, prop_dist, norms, dataset_info, loaders, name, geom, arguments
    )  # fmt: skip


def _data(args: argparse.Namespace) -> tuple[GeomData | None, dict[str, Any], Mapping[str, DataLoader]]:
    """GEOM-Drugs, for a run on it, EDM's description of the data set and its loaders."""
    if args.dataset == "geom":
        try:
            geom = load_geom(args)
        except DataError as error:
            raise EvaluationError(f"{first_line(error)} (or name another file with --data_file)") from error
        return geom, geom.dataset_info, geom.loaders
    get_dataset_info = import_edm("configs.datasets_config").get_dataset_info
    dataset_info = {**get_dataset_info(args.dataset, args.remove_h), "datadir": args.datadir}
    return None, dataset_info, import_edm("qm9.dataset").retrieve_dataloaders(args)[0]


def _fit(model: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    odd = mismatch(model.state_dict(), weights)
    if odd is not None:
        raise EvaluationError(f"{path} does not fit the model of config.json: {odd}")
    model.load_state_dict(weights)


def _check_data(args: argparse.Namespace) -> None:
    """EDM would go and download; here missing or corrupt data are refused before anything is done."""
    if "qm9" not in args.dataset:
        return
    try:
        check_datadir(args.datadir)
    except DataError as error:
        raise EvaluationError(f"{first_line(error)} (or name another folder with --datadir)") from error
