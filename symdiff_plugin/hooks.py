"""What the patches of EDM call: each name here stands in a line of ``patches/``, the work is done elsewhere.

``wandb`` (EDM imports it from here) is :data:`symdiff_plugin.training.tracker.tracker`.
"""

from __future__ import annotations

import functools
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from torch import nn

from symdiff_plugin.common.progress import progress, sample_batches
from symdiff_plugin.common.workers import DataLoader
from symdiff_plugin.data import qm9_loading
from symdiff_plugin.data.schema import DataError
from symdiff_plugin.edm import edm_directory
from symdiff_plugin.edm.checkout import GEOM_PERMUTATION
from symdiff_plugin.evaluate.novelty import training_smiles
from symdiff_plugin.packed.precision import tell_if_slower
from symdiff_plugin.process.edm_diffusion import with_sampler
from symdiff_plugin.process.edm_processes import flow_matching, score_matching
from symdiff_plugin.process.probabilistic_model import FLOW, PROCESSES, SCORE, WITH_LIKELIHOOD
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.sampling_step import sampling, step_time
from symdiff_plugin.training import eval_scripts
from symdiff_plugin.training.arguments import architecture_overrides, is_plugin_model, parse_args
from symdiff_plugin.training.checkpoint import TrainingState
from symdiff_plugin.training.debug_checks import checking, debug_check, zeros_if_nan
from symdiff_plugin.training.ema import update_average
from symdiff_plugin.training.host_reads import read, to_device
from symdiff_plugin.training.init_from import InitError, freeze, initialise
from symdiff_plugin.training.optim import clip_gradients
from symdiff_plugin.training.optim import get_optim as plain_optim
from symdiff_plugin.training.run import Run
from symdiff_plugin.training.size_histogram import LogProbabilities, NearestSize, commonest, histogram
from symdiff_plugin.training.size_independent_loss import attach_sizes, begin_step, loss_size
from symdiff_plugin.training.tracker import tracker as wandb

__all__ = [
    "PROCESSES",
    "WITH_LIKELIHOOD",
    "DataLoader",
    "LogProbabilities",
    "NearestSize",
    "attach_sizes",
    "augment",
    "begin_step",
    "build_dynamics",
    "checking",
    "class_columns",
    "classifier_arguments",
    "clip_gradients",
    "debug_check",
    "diffusion_class",
    "end_epoch",
    "geom_dataloaders",
    "geom_dataset_info",
    "get_optim",
    "histogram",
    "is_tested",
    "is_visualised",
    "load_weights",
    "loss_size",
    "parse_args",
    "parse_evaluation",
    "progress",
    "property_column",
    "read",
    "read_split",
    "regression_loss",
    "run_arguments",
    "sample_batches",
    "sampling",
    "save",
    "save_arguments",
    "species",
    "start_run",
    "step_time",
    "to_device",
    "training_batches",
    "training_smiles",
    "update_average",
    "usual_size",
    "wandb",
    "with_atoms",
    "zeros_if_nan",
]

T = TypeVar("T")

_run: Run | None = None


def build_dynamics(args: Any, in_node_nf: int) -> nn.Module | None:
    """The network that a run's arguments ask for; None for EDM's models, which EDM builds itself.

    Args:
        args: the run's arguments, old pickles included.
        in_node_nf: atom types plus charge, without EDM's column for the time.
    """
    if not is_plugin_model(args):
        return None
    from symdiff_plugin.model.dynamics import build_dynamics as build

    dynamics = build(args.model, in_node_nf, args.context_node_nf, **architecture_overrides(args))
    on = "cuda" if getattr(args, "cuda", False) else "cpu"
    tell_if_slower(dynamics.architecture.precision, on, dynamics.architecture.hidden_size)
    mode = getattr(args, "compile", "off")
    if mode != "off":
        dynamics.compile_blocks(mode)
    return dynamics


def get_optim(args: Any, model: nn.Module) -> torch.optim.Optimizer | None:
    """The optimiser of a run; None for EDM's models, which have their own.

    EDM asks for it between building the model and copying it for the moving average, which is when the weights of
    ``--init_from`` have to be there and those of ``--freeze_epsilon`` to be left out.

    Args:
        args: the run's arguments.
        model: EDM's diffusion model; changed in place.

    Raises:
        SystemExit: status 2 and one line if the weights do not fit.
    """
    if is_plugin_model(args):
        try:
            initialise(args, model)
        except InitError as error:
            _refuse(error)
        if getattr(args, "freeze_epsilon", False):
            freeze(model)
    return plain_optim(args, model)


def _refuse(error: ValueError) -> NoReturn:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    raise SystemExit(getattr(error, "exit_status", 2)) from None


def _for_scripts(work: Callable[..., T], error: type[ValueError] = DataError) -> Callable[..., T]:
    """``work`` for EDM's scripts, which an ``error`` of it ends in one line, with status 2."""

    @functools.wraps(work)
    def ending(*args: Any, **kwargs: Any) -> T:
        try:
            return work(*args, **kwargs)
        except error as fault:
            _refuse(fault)

    return ending


read_split = _for_scripts(qm9_loading.read_split)
species = _for_scripts(qm9_loading.species)
with_atoms = _for_scripts(qm9_loading.with_atoms)
property_column = _for_scripts(qm9_loading.property_column)
parse_evaluation = _for_scripts(eval_scripts.parse, ValueError)
run_arguments = _for_scripts(eval_scripts.script_arguments, ValueError)
classifier_arguments = _for_scripts(eval_scripts.classifier_arguments, ValueError)
load_weights = _for_scripts(eval_scripts.load_weights, ValueError)


def diffusion_class(args: Namespace, edms: Any) -> Any:
    """The class of EDM's diffusion model that trains and samples as ``args`` say; upstream's own where that is its way.

    Args:
        args: the run's arguments, old pickles included.
        edms: EDM's ``EnVariationalDiffusion``.
    """
    chosen = Sampler.of(vars(args), args.diffusion_steps)
    if args.probabilistic_model == FLOW:
        alignment = getattr(args, "flow_alignment", None) or "none"  # runs from before there was the flag
        return flow_matching(edms, chosen, args.flow_sigma, alignment, getattr(args, "group", "o3") == "so3")
    if args.probabilistic_model == SCORE:
        return score_matching(edms, chosen, args.score_weighting)
    return edms if chosen.is_edms(args.diffusion_steps) else with_sampler(edms, chosen)


def regression_loss(
    model: nn.Module, x: torch.Tensor, h: dict[str, torch.Tensor], node_mask: torch.Tensor, edge_mask: torch.Tensor,
    context: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, float]:  # fmt: skip
    """What EDM's ``compute_loss_and_nll`` returns, of a model without a likelihood: no log p(N) belongs to its loss.

    Args:
        model: a process's class, or its ``DataParallel``; returns (B,).
        x, h, node_mask, edge_mask, context: as EDM's models take them.
    """
    loss = model(x, h, node_mask, edge_mask.view(len(x), -1), context).mean(0)
    return loss, torch.zeros(1, device=loss.device), 0.0


def usual_size(args: Any, dataset_info: Mapping[str, Any]) -> int:
    """The number of atoms of a molecule shown as an example: that of most of the run's training molecules."""
    return commonest(histogram(args, dataset_info["n_nodes"]))


def geom_dataloaders(args: Namespace, dataset_info: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """EDM's loaders of GEOM-Drugs; see :func:`symdiff_plugin.data.geom.loading.dataloaders`.

    Args:
        args: the run's arguments, old pickles included.
        dataset_info: EDM's description of the data set; the run's own (:func:`geom_dataset_info`) where it is None.

    Raises:
        SystemExit: status 2 and one line if the data cannot be used, also while they are gone through.
    """
    from symdiff_plugin.data.geom.loading import dataloaders

    if dataset_info is None:
        from configs.datasets_config import get_dataset_info  # EDM's

        dataset_info = geom_dataset_info(args, get_dataset_info(args.dataset, args.remove_h))
    try:
        return dataloaders(args, dataset_info, edm_directory() / Path(GEOM_PERMUTATION), _refuse)
    except DataError as error:
        _refuse(error)


def augment(args: Any, x: torch.Tensor) -> torch.Tensor:
    """Turn every molecule at random, under ``--data_augmentation True``.

    The plugin's models: by a Haar draw from O(3) (eq. 15 of the paper). EDM's: EDM's ``random_rotation``, which
    is neither Haar (composed Euler angles) nor ever a reflection.

    Args:
        args: the run's arguments.
        x: (B, N, 3) coordinates.
    """
    if not is_plugin_model(args):
        import utils  # EDM's

        return utils.random_rotation(x)
    from symdiff_plugin.model.groups import sample_haar

    return x @ sample_haar(x.size(0), device=x.device, dtype=x.dtype).transpose(1, 2)


def class_columns(diffusion: Any) -> slice:
    """The columns of EDM's latent [x, h] that hold the atom types, as sampling reads them.

    All but the last, whether or not that is a charge, as upstream has it; with ``--all_classes`` all atom types.

    Args:
        diffusion: EDM's diffusion model.
    """
    if getattr(diffusion, "all_classes", False):
        return slice(diffusion.n_dims, diffusion.n_dims + diffusion.num_classes)
    return slice(diffusion.n_dims, -1)


def geom_dataset_info(args: Namespace, default: dict[str, Any]) -> dict[str, Any]:
    """EDM's dataset_info of a run: of its own data (``--data_file``), where those have one, else ``default``.

    With other elements than EDM's the run gets ``--all_classes``: that upstream never generates the last one is of
    GEOM-Drugs no loss (34 of its 322 million atoms are Bi), but the last of one's own may well be common, such as Br.

    Args:
        args: the run's arguments; ``all_classes`` is set where it has to be.
        default: EDM's.

    Raises:
        SystemExit: status 2 and one line if the data's own is damaged.
    """
    from symdiff_plugin.data.geom.dataset_info import of_run

    try:
        found = of_run(args, default)
    except DataError as error:
        _refuse(error)
    if found["atom_decoder"] != default["atom_decoder"] and not getattr(args, "all_classes", False):
        elements = " ".join(found["atom_decoder"])
        print(f"Elements of {found['data_set']}: {elements}, all of them sampled (--all_classes)")
        args.all_classes = True
    return found


def save(state: dict[str, Any], path: str) -> None:
    """Write weights, or the optimiser; see :meth:`symdiff_plugin.training.run.Run.save_weights`."""
    assert _run is not None, "start_run comes first"
    _run.save_weights(state, path)


def save_arguments(args: Namespace, path: str) -> None:
    """Write ``args.pickle``; see :meth:`symdiff_plugin.training.run.Run.save_arguments`."""
    assert _run is not None, "start_run comes first"
    _run.save_arguments(args, path)


def training_batches(loader: Any, epoch: int, losses: list[Any]) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
    """The batches of an epoch that are still to do; see :meth:`symdiff_plugin.training.run.Run.batches`.

    Where somebody else calls EDM's ``train_epoch``, without a run's folder, all of them.
    """
    return enumerate(progress(loader, f"Epoch {epoch}")) if _run is None else _run.batches(loader, epoch, losses)


def start_run(
    args: Namespace, model: nn.Module, model_ema: nn.Module, optim: torch.optim.Optimizer, queue: Any
) -> tuple[float, float]:
    """Open the run's folder and, under ``--resume``, put the checkpoint back.

    Args:
        args: the run's arguments; ``start_epoch`` is set to where the run goes on.
        model, model_ema, optim, queue: EDM's training state, see :class:`TrainingState`.

    Returns:
        The best validation NLL so far and the test NLL that goes with it; 1e8 at the start, as in EDM.
    """
    global _run
    state = TrainingState(model, model_ema, optim, queue)
    _run = Run(args, state)
    return state.best_nll


def is_tested(epoch: int) -> bool:
    """Whether ``epoch`` ends with a test; see :meth:`symdiff_plugin.training.run.Run.is_tested`."""
    assert _run is not None, "start_run comes first"
    return _run.is_tested(epoch)


def is_visualised(args: Namespace, epoch: int, batch: int) -> bool:
    """Whether EDM samples and draws molecules after a training batch: every so many of the epochs that are tested.

    The plugin's models do at the end of every ``--visualize_every_batch`` batches. EDM's do where upstream does, at
    their beginning, hence at the first batch whatever the flag: the samples take the random numbers of later steps.

    Args:
        args: the run's arguments.
        epoch, batch: the numbers of both, from 0.
    """
    if epoch % args.test_epochs != 0:
        return False
    if is_plugin_model(args):
        return (batch + 1) % args.visualize_every_batch == 0
    return batch % args.visualize_every_batch == 0 and (epoch, batch) != (0, 0)


def end_epoch(
    epoch: int,
    model: nn.Module,
    model_ema: nn.Module,
    optim: torch.optim.Optimizer,
    queue: Any,
    best_nll_val: float,
    best_nll_test: float,
) -> None:
    """Write the history and, where it is due, the checkpoint; see :meth:`symdiff_plugin.training.run.Run.end_epoch`."""
    assert _run is not None, "start_run comes first"
    _run.end_epoch(epoch, TrainingState(model, model_ema, optim, queue, (best_nll_val, best_nll_test)))
