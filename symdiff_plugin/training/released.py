"""Runs of the authors' release, and of EDM as it was: their arguments and weights in our terms.

The release departs from the paper in ways that ``build_dynamics(name, nf, compat="release")`` reproduces (composition,
Psi's bias, time scale, noise eta; ``release_fix_qr`` is its flag ``--fix_qr``). :func:`run_arguments` reads the folder
of such a run, :func:`load_release` brings in its weights. What follows the prefix of a weight's name is the same in
both, since the DiT keeps the layout of the reference implementation.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from symdiff_plugin.common.weights import finite, mismatch
from symdiff_plugin.presets import PRESETS, Architecture, get_architecture
from symdiff_plugin.training import args_pickle, flag_table
from symdiff_plugin.training.args_pickle import ArgumentsError
from symdiff_plugin.training.arguments import architecture_overrides, default_datadir
from symdiff_plugin.training.flag_table import EDM_MODELS
from symdiff_plugin.training.run_config import CONFIG, read_config

if TYPE_CHECKING:
    from symdiff_plugin.model.dynamics import DiTDynamics

PREFIX = "dynamics."
# The release's names and ours. The longest prefix decides.
NAMES = {
    "gaussian_embedder.means.weight": "pair_embedding.means",
    "gaussian_embedder.stds.weight": "pair_embedding.stds",
    "pos_embedder.": "pair_embedding.proj.",
    "xh_embedder.": "xh_embedder.",
    "k.": "dit.",
    "model.": "dit.",  # of a plain DiT
    "gamma_enc.x_embedder.": "f_theta.x_embedder.",
    "gamma_enc.": "f_theta.dit.",
    "gamma_dec.fc1.": "f_theta.fc1.",
    "gamma_dec.fc2.": "f_theta.fc2.",
}
# f_theta has no final layer (Algorithm 4), though the release's encoder carries the weights of one.
UNUSED = ("gamma_enc.final_layer.",)
# EDM's own entries of a whole model's state dict: the noise schedule and a device marker.
NOT_DYNAMICS = ("gamma.", "buffer")

# The release's --model, and the preset that has its network.
MODELS = {"dit_dit_gaussian_dynamics": "symdiff", "dit_gaussian_dynamics": "dit"}
# What the release can do otherwise and no published run does.
_ALWAYS = {"mlp_type": "swiglu", "enc_concat_h": False, "n_dims": 3, "conditioning": []}
# Fields of an architecture that the release has no flag for.
_OURS = ("frame", "time_scale", "precision", "compat", "group", "base")
# What old runs lack of EDM's arguments, as EDM's own scripts fill it in, and of the patched EDM's.
_MISSING = {
    "normalization_factor": 1, "aggregation_method": "sum", "augment_noise": 0, "diffusion_noise_precision": 1e-4,
    "all_classes": False,
}  # fmt: skip


def read_configuration(folder: Path) -> dict[str, Any]:
    """The configuration of a run: its ``config.json`` or, where it has none, what its ``args.pickle`` says.

    Raises:
        FileNotFoundError: there is neither.
        OSError, ValueError: it cannot be read, or is of another shape; the message is one line.
    """
    if (folder / CONFIG).is_file() or not (folder / args_pickle.FILE_NAME).is_file():
        return read_config(folder)
    args = run_arguments(folder)
    record = {"model": args.model, "args": vars(args), "recognised": args.recognised}
    if args.model in PRESETS:
        record["architecture"] = asdict(get_architecture(args.model, **architecture_overrides(args)))
    return record


def run_arguments(folder: str | Path) -> Namespace:
    """The arguments of a run in our terms, from its ``args.pickle``; nothing in it is executed.

    Args:
        folder: of a run of the release, of EDM or of the plugin.

    Returns:
        The arguments; ``recognised`` says in words whose they are. Where QM9 is no longer in their ``datadir``, that
        is the plugin's own.

    Raises:
        ArgumentsError: they are missing, damaged, impossible, or of a model that the plugin does not have.
    """
    args = args_pickle.read_args_pickle(Path(folder) / args_pickle.FILE_NAME)
    model = getattr(args, "model", None)
    for name, value in _MISSING.items():
        setattr(args, name, getattr(args, name, value))
    if model in MODELS:
        args.recognised = _recognise(args, folder)
    elif model in EDM_MODELS:
        args.recognised = f"EDM's {model}"
    elif model in PRESETS:
        args.recognised = f"{PRESETS[model].label} of symdiff_plugin"
    else:
        known = ", ".join((*MODELS, *EDM_MODELS, *PRESETS))
        raise ArgumentsError(f"{folder} is of --model {model}, which is not known here; known are {known}")
    if fault := flag_table.fault(vars(args)):
        raise ArgumentsError(f"{folder}: its {fault[0]} {fault[1]}: it is no run that can be evaluated")
    datadir = getattr(args, "datadir", None)
    if datadir is not None and not (Path(datadir) / "qm9").is_dir() and (default_datadir() / "qm9").is_dir():
        args.datadir = str(default_datadir())
    return args


def _recognise(args: Namespace, folder: str | Path) -> str:
    """Rewrite arguments of the release in place, and say what they are."""
    theirs = args.model
    wanted = [f.name for f in fields(Architecture) if f.name not in _OURS]
    if lacking := [name for name in (*wanted, "conditioning") if not hasattr(args, name)]:
        raise ArgumentsError(f"{folder}: --model {theirs} without --{lacking[0]} is no run of the authors' release")
    for name, value in _ALWAYS.items():
        if getattr(args, name, value) != value:
            raise ArgumentsError(
                f"{folder} is of the release's --{name} {getattr(args, name)}: the plugin has --{name} {value} alone"
            )
    base = PRESETS[MODELS[theirs]].architecture
    compat = "release_fix_qr" if base.frame == "learned" and getattr(args, "fix_qr", False) else "release"
    sizes = {name: getattr(args, name) for name in wanted}
    try:
        architecture = get_architecture(MODELS[theirs], compat=compat, time_scale=1.0, **sizes)
    except (TypeError, ValueError) as error:
        raise ArgumentsError(f"{folder}: its sizes make no model ({error})") from error
    args.model = _named_like(architecture) or MODELS[theirs]
    for name in (*wanted, *_OURS):
        setattr(args, name, getattr(architecture, name))
    size = "" if _named_like(architecture) else f", of its own size ({architecture.hidden_size} x {architecture.depth})"
    return f"{PRESETS[args.model].label} of the authors' release ({theirs}){size}: --symdiff_compat {compat}"


def _named_like(architecture: Architecture) -> str | None:
    """The preset that has this architecture."""
    for name, preset in PRESETS.items():
        ours = preset.architecture
        if all(getattr(ours, field) == getattr(architecture, field) for field in ("frame", "group", "base")):
            theirs = get_architecture(name, compat=architecture.compat)
            if all(getattr(theirs, size) == getattr(architecture, size) for size in _sizes(architecture)):
                return name
    return None


def _sizes(architecture: Architecture) -> list[str]:
    """The fields that make its network what it is; a plain DiT has no f_theta."""
    names = [f.name for f in fields(Architecture) if f.name not in _OURS]
    f_theta = ("enc_", "dec_", "noise_")
    return names if architecture.frame == "learned" else [name for name in names if not name.startswith(f_theta)]


def is_release(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state dict, of a whole model or of its dynamics, has the release's names."""
    return any(name.removeprefix(PREFIX).startswith("gaussian_embedder.") for name in state_dict)


def whole_model(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict of EDM's whole diffusion model under our names.

    Raises:
        ValueError: a name that no released model has.
    """
    edms = {name: value for name, value in state_dict.items() if name.startswith(NOT_DYNAMICS)}
    return {**edms, **{PREFIX + name: value for name, value in from_release(state_dict).items()}}


def from_release(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under the parameter names of :class:`DiTDynamics` and :class:`SymDiffDynamics`.

    Args:
        state_dict: of the whole model (names with the prefix ``dynamics.``) or of its dynamics alone.

    Raises:
        ValueError: a name that no released model has.
    """
    whole = any(name.startswith(PREFIX) for name in state_dict)
    renamed = {}
    for name, value in state_dict.items():
        if whole and not name.startswith(PREFIX):
            if name.startswith(NOT_DYNAMICS):
                continue
            raise ValueError(f"not a released SymDiff checkpoint: unexpected entry {name!r}")
        short = name.removeprefix(PREFIX)
        if short.startswith(UNUSED):
            continue
        source = max((old for old in NAMES if short.startswith(old)), key=len, default=None)
        if source is None:
            raise ValueError(f"not a released SymDiff checkpoint: unexpected entry {name!r}")
        new = NAMES[source] + short.removeprefix(source)
        renamed[new] = value.reshape(-1) if value.shape[:1] == (1,) and new.startswith("pair_embedding.") else value
    return renamed


def load_release(dynamics: DiTDynamics, state_dict: Mapping[str, Tensor]) -> None:
    """Loads a released checkpoint into ``dynamics``, which changes only if everything fits.

    Args:
        dynamics: of the released model's sizes; ``compat="release"`` (or ``"release_fix_qr"``) reproduces the
            release's outputs, the default puts its weights into the paper's model, which they were not trained for.
        state_dict: as ``torch.load(path, weights_only=True)`` gives it.

    Raises:
        ValueError: an entry is unknown, missing, of another shape or not finite.
    """
    renamed = finite(from_release(state_dict), "the checkpoint")
    odd = mismatch(dynamics.state_dict(), renamed)
    if odd is not None:
        raise ValueError(f"the checkpoint does not fit the model: {odd}; choose its preset and sizes")
    dynamics.load_state_dict(renamed)
