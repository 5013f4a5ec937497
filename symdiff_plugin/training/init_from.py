r"""Starting from the weights of another run: ``--init_from`` and ``--freeze_epsilon``.

Appendix C.4 of Zhang et al. (2024) puts a trained DiT into SymDiff as its epsilon_theta; f_theta is new. DiT-FT trains
both, DiT-FT-Freeze f_theta alone. The dynamics of a DiT are those of SymDiff without f_theta, parameter names included:

    dynamics.{pair_embedding, xh_embedder, dit}.*   epsilon_theta, with Psi        taken over
    dynamics.f_theta.*                              f_theta                        taken over if it is there, else new
    gamma.gamma, buffer                             EDM's noise schedule           this run's own

A run whose checkpoint is resumed does not read the weights again.
"""

from __future__ import annotations

import hashlib
from argparse import Namespace
from pathlib import Path
from typing import Any

from torch import Tensor

from symdiff_plugin.common.weights import mismatch, read_state_dict
from symdiff_plugin.presets import PRESETS, Architecture
from symdiff_plugin.training.checkpoint import why_missing
from symdiff_plugin.training.run_config import read_config

HELP = (
    "start from these weights: the folder of a run (generative_model_ema.npy, its moving average) or a file of "
    "weights; an f_theta that they lack starts afresh"
)
BEST_AVERAGE = "generative_model_ema.npy"
_PREFIX = "dynamics."
_F_THETA = "f_theta."
# What epsilon_theta is made of; two of them (the heads, the time's scale) do not show in the weights' shapes.
_EPSILON_FIELDS = ("hidden_size", "depth", "num_heads", "mlp_ratio", "xh_hidden_size", "K", "time_scale")


class InitError(ValueError):
    """Weights that a run cannot start from; the message is one line, with the remedy."""


def find_initial_weights(path: str | Path) -> Path:
    """The file of weights that ``path``, the folder of a run or the file itself, stands for.

    Raises:
        InitError: it is not there.
    """
    path = Path(path)
    if not path.exists():
        raise InitError(f"--init_from {path} is not there: give the folder of a trained run, such as outputs/dit")
    if path.is_dir():
        path = path / BEST_AVERAGE
        if not path.is_file():
            raise InitError(f"{why_missing(path)}; or give --init_from a file of weights")
    return path


def check_initial_weights(args: Namespace, architecture: Architecture, resumed: dict[str, Any] | None) -> None:
    """Complete and check what a run's arguments say of ``--init_from`` and ``--freeze_epsilon``.

    Sets ``init_from`` (None without one) and ``init_from_sha256``, the hash of the file of weights.

    Args:
        args: the arguments of one of the plugin's models; changed in place.
        architecture: the one they ask for.
        resumed: the arguments in the checkpoint that the run goes on from, whose weights count; None if it starts
            afresh.

    Raises:
        InitError: weights are missing, not wanted, or not those of such a network.
    """
    given = getattr(args, "init_from", None)
    args.init_from, args.init_from_sha256 = given, None
    if architecture.frame != "learned" and args.freeze_epsilon:
        raise InitError(f"--freeze_epsilon True trains f_theta alone, and --model {args.model} has none: leave it out")
    if resumed is not None:
        before = resumed.get("init_from")
        if given is not None and (before is None or Path(given).resolve() != Path(before).resolve()):
            raise InitError(
                f"the run to resume started from {before or 'new weights'}, not from {given}: leave --init_from out"
            )
        args.init_from, args.init_from_sha256 = before, resumed.get("init_from_sha256")
        return
    start = PRESETS[args.model].starts_from
    if given is None:
        if start is not None:
            raise InitError(
                f"--model {args.model} starts from a trained {start}: train that with ./run_qm9.sh {start}, then give "
                f"--init_from outputs/{start}"
            )
        if args.freeze_epsilon:
            raise InitError("--freeze_epsilon True needs trained weights to freeze: give --init_from as well")
        return
    path = find_initial_weights(given)
    _check_configuration(path, args, architecture)
    read_initial_weights(path)
    args.init_from_sha256 = _sha256(path)


def read_initial_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a network's dynamics in a file of weights, on the CPU, without EDM's prefix; nothing is executed.

    Raises:
        InitError: the file is damaged or holds something else.
    """
    try:
        weights = read_state_dict(path)
    except ValueError as error:
        raise InitError(f"{error}: give --init_from a run's folder or its {BEST_AVERAGE}") from error
    found = {name.removeprefix(_PREFIX): value for name, value in weights.items() if name.startswith(_PREFIX)}
    if not found:
        raise InitError(f"{path} holds no weights of a network ({_PREFIX}...): give --init_from a run's folder")
    return found


def initialise(args: Namespace, model: Any) -> None:
    """Load the weights of ``args.init_from`` into the network; nothing without one, or if the run is resumed.

    Args:
        args: the run's arguments.
        model: EDM's diffusion model; its ``dynamics`` are changed in place, all or nothing.

    Raises:
        InitError: a weight is missing, unknown or of another shape, or the file changed since the arguments were read.
    """
    given = getattr(args, "init_from", None)
    if given is None or getattr(args, "resume_from", None) is not None:
        return
    path = find_initial_weights(given)
    weights = read_initial_weights(path)
    if _sha256(path) != args.init_from_sha256:
        raise InitError(f"{path} has changed since this run began: start again once that run is finished")
    wanted = model.dynamics.state_dict()
    if not any(name.startswith(_F_THETA) for name in weights):
        wanted = {name: value for name, value in wanted.items() if not name.startswith(_F_THETA)}
    odd = mismatch(wanted, weights)
    if odd is not None:
        raise InitError(
            f"{path} does not fit --model {args.model}: {odd}; give the architecture and data flags that those weights "
            "were trained with"
        )
    model.dynamics.load_state_dict(weights, strict=False)  # strict but for an f_theta that is new: compared above
    print(f"Starting from the weights of {path} ({len(weights)} tensors)")


def freeze(model: Any) -> None:
    """Freeze all of EDM's diffusion model but f_theta (DiT-FT-Freeze).

    Psi is an input of f_theta as well as of epsilon_theta (one evaluation serves both). It belongs to the trained DiT,
    which would change with it, so it is frozen too; so is EDM's noise schedule, which never learns. What is frozen is
    in no optimiser and is passed over by the moving average, which would round it.

    Args:
        model: with ``dynamics.f_theta``; its parameters lose ``requires_grad``, and their names are put into
            ``model.frozen_parameters``.
    """
    frozen = set()
    for name, parameter in model.named_parameters():
        if not name.startswith(_PREFIX + _F_THETA):
            parameter.requires_grad_(False)
            frozen.add(name)
    model.frozen_parameters = frozenset(frozen)


def _check_configuration(path: Path, args: Namespace, architecture: Architecture) -> None:
    """Compare with the config.json beside the weights, where there is one, what their shapes do not tell."""
    try:
        config = read_config(path.parent)
        theirs, factors = config["architecture"], config["args"]["normalize_factors"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        raise InitError(
            f"{path.parent / 'config.json'} is not of one of the plugin's models: give --init_from a run of dit"
        ) from None
    for name in _EPSILON_FIELDS:
        if theirs.get(name) != getattr(architecture, name):
            raise InitError(
                f"{path} has {name} {theirs.get(name)}, this run {getattr(architecture, name)}: "
                f"give --{name} {theirs.get(name)}"
            )
    if list(factors) != list(args.normalize_factors):
        text = str(factors).replace(" ", "")
        raise InitError(f"{path} was trained with --normalize_factors {text}: give this run the same")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
