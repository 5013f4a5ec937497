"""Arguments of a run: the plugin's flags, added to those of EDM's training scripts.

``--model`` takes EDM's own names and the presets'. A preset brings the paper's settings as defaults; an
explicit flag always wins. With one of EDM's models every default is EDM's own, and the flags of the
plugin's models are refused rather than ignored.

What follows holds for every model: EDM's ``type=eval`` flags accept Python literals only, ``--online False``
means False (upstream's ``type=bool`` takes any text for True), and every mistake is one line and exit status 2.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from symdiff_plugin import checkpoint, init_from, presets
from symdiff_plugin.argument_types import boolean, mend_types
from symdiff_plugin.checks import enable_checks
from symdiff_plugin.data.geom import flags as geom
from symdiff_plugin.presets import ARCHITECTURE_FIELDS, PRESETS, Architecture, get_architecture

EDM_MODELS = ("egnn_dynamics", "gnn_dynamics")
# What EDM has statistics of; main_geom_drugs.py takes no other data, main_qm9.py does not take GEOM.
QM9_DATASETS = ("qm9", "qm9_second_half")
GEOM_DATASETS = ("geom",)

_CHOICES = {"frame": presets.FRAMES, "precision": presets.PRECISIONS, "compat": presets.COMPATS}
_FLAG = {"compat": "--symdiff_compat"}  # the others are called like their field
_HELP = {
    "frame": "where R comes from: R0 f_theta (SymDiff), R0 alone (SymDiff-H) or the identity (DiT)",
    "hidden_size": "width of epsilon_theta",
    "depth": "layers of epsilon_theta",
    "num_heads": "attention heads of epsilon_theta",
    "mlp_ratio": "width of epsilon_theta's MLPs, both halves of the SwiGLU, in hidden_size",
    "xh_hidden_size": "n_z, width of the embedding of [x, h]; Psi has the rest of hidden_size",
    "K": "Gaussian kernels of Psi",
    "enc_hidden_size": "width of f_theta",
    "enc_depth": "layers of f_theta",
    "enc_num_heads": "attention heads of f_theta",
    "enc_mlp_ratio": "width of f_theta's MLPs, in enc_hidden_size",
    "dec_hidden_features": "hidden width of f_theta's last two-layer network",
    "noise_dims": "m_noise, columns of eta",
    "noise_std": "standard deviation of eta",
    "mlp_dropout": "dropout inside the MLPs",
    "time_scale": "the network embeds time_scale * t, t in [0, 1]",
    "precision": "bf16: autocast inside the networks; geometry and outputs stay float32",
    "compat": "release: the authors' released model, which is not equivariant; release_fix_qr: theirs of --fix_qr",
}
_TRAINING_HELP = {
    "weight_decay": "of AdamW",
    "clip_norm": "largest gradient norm; inf does not clip",
    "fused": "True | False: torch's fused AdamW, the same but for rounding and the fastest; False: torch's own choice "
    "of the others",
    "freeze_epsilon": "True | False: train f_theta alone; epsilon_theta and Psi, which is f_theta's too, keep the "
    "weights of --init_from",
}
# Arguments of the run that wrote a checkpoint which do not hold for one that goes on from it.
_NOT_RESUMED = {
    "model", "resume", "resume_from", "start_epoch", "current_epoch", "exp_name", "context_node_nf",
    "cuda", "no_cuda", "dp", "wandb_usr", "no_wandb", "online", "debug_checks",
}  # fmt: skip
# Flags whose value must be at least this, in every model.
_AT_LEAST = {
    "n_epochs": 0, "batch_size": 1, "diffusion_steps": 1, "test_epochs": 1, "n_report_steps": 1,
    "n_stability_samples": 1, "visualize_every_batch": 1, "num_workers": 0, "start_epoch": 0,
    "split_seed": 0,
}  # fmt: skip


def default_datadir() -> Path:
    """Where the set-up scripts put the data: ``data/`` of the repository, or of the working directory where
    the plugin was installed without it."""
    root = Path(__file__).resolve().parent.parent
    return root / "data" if (root / "patches").is_dir() else Path("data").resolve()


def is_plugin_model(args: Any) -> bool:
    """Whether a run's arguments, old pickles included, ask for one of the plugin's models."""
    return getattr(args, "model", None) in PRESETS


def architecture_overrides(args: Any) -> dict[str, Any]:
    """The fields of :class:`~symdiff_plugin.presets.Architecture` that a run's arguments hold."""
    return {name: getattr(args, name) for name in ARCHITECTURE_FIELDS if hasattr(args, name)}


def parse_args(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of ``main_qm9.py`` or ``main_geom_drugs.py``, with the plugin's flags.

    The command line is read again once ``--model`` and the data set are known, with the preset's defaults in
    place. ``--resume PATH`` takes a run's folder or checkpoint, whose flags then are the defaults; ``--resume auto``
    the folder of this run, if it has a checkpoint. A ``--seed`` is set here, before EDM draws its first number, and
    so are the checks of ``--debug_checks``.

    Args:
        parser: EDM's parser, complete; it is extended in place.
        argv: the arguments, those of the process if not given.

    Returns:
        EDM's arguments and, for the plugin's models alone, those of the plugin: plain values, which EDM
        pickles and from which its evaluation scripts rebuild the model.

    Raises:
        SystemExit: status 2 and one line on stderr for a wrong argument or missing data.
    """
    # argparse's own complaints are one line too, without the usage of all 60 flags before them.
    parser.error = lambda message: _refuse(parser, f"{message} (--help lists the flags)")  # type: ignore
    mend_types(parser)
    plugin_flags = _add_flags(parser)
    args = parser.parse_args(argv)
    path, record = _checkpoint_to_resume(parser, args)
    if record is not None:
        # Flags of the run that goes on are the defaults; what was given here wins.
        parser.set_defaults(model=record["model"])
        args = parser.parse_args(argv)
    names = (*EDM_MODELS, *PRESETS)
    if args.model not in names:
        _refuse(parser, f"unknown --model {args.model!r}; choose one of {', '.join(names)}")
    if args.model not in PRESETS and (given := [f for dest, f in plugin_flags.items() if hasattr(args, dest)]):
        _refuse(
            parser,
            f"{', '.join(given)}: for the plugin's models alone, not for --model {args.model}; "
            f"leave it out or choose one of {', '.join(PRESETS)}",
        )
    defaults = _preset_defaults(args) if args.model in PRESETS else {}
    if record is not None:
        if record["model"] != args.model:
            _refuse(parser, f"{path} is of --model {record['model']}, not {args.model}: leave --model out")
        defaults.update({name: value for name, value in record.items() if name not in _NOT_RESUMED})
        folder = path.resolve().parent
        defaults["exp_name"] = folder.name if folder.parent == Path("outputs").resolve() else record["exp_name"]
    parser.set_defaults(**defaults)
    args = parser.parse_args(argv)
    args.resume_from = None if path is None else str(path)
    if args.keep_checkpoints is None:
        args.keep_checkpoints = not is_plugin_model(args)
    args.resume = None  # EDM's own way to resume, which reads files that nothing writes
    _check_values(parser, args)
    _check_combinations(parser, args)
    if is_plugin_model(args):
        try:
            init_from.check(args, get_architecture(args.model, **architecture_overrides(args)), record)
        except init_from.InitError as error:
            _refuse(parser, str(error))
    _check_data(parser, args)
    if args.no_cuda:
        args.dp = False  # upstream wraps a model on the CPU in DataParallel wherever it sees two GPUs
    enable_checks(args.debug_checks)
    if args.seed is not None:
        seed_everything(args.seed)
    return args


def seed_everything(seed: int) -> None:
    """Seed torch (every device), NumPy and Python."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _checkpoint_to_resume(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> tuple[Path | None, dict[str, Any] | None]:
    """The checkpoint that ``--resume`` asks for and the arguments in it; None, None for a run that starts afresh."""
    if args.resume is None:
        return None, None
    if args.resume == "auto":
        name = args.exp_name
        if name == parser.get_default("exp_name") and args.model in PRESETS:
            name = args.model
        path = checkpoint.find(Path("outputs") / name)
        if not path.exists():
            return None, None
    else:
        path = checkpoint.find(args.resume)
    try:
        return path, checkpoint.load(path, mmap=True)["args"]
    except checkpoint.CheckpointError as error:
        _refuse(parser, str(error))


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    if not parser.exit_on_error:
        raise argparse.ArgumentError(None, message)
    parser.exit(2, f"{parser.prog}: error: {message}\n")


def _add_flags(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Add the plugin's flags; without a default, so that a flag that was not given leaves no attribute.

    Returns:
        The flag of every argument that belongs to the plugin's models alone, by name.
    """
    everyone = parser.add_argument_group("added by symdiff_plugin, for every model")
    everyone.add_argument("--seed", type=int, default=None, help="seed of every random number of the run")
    everyone.add_argument(
        "--all_classes", action="store_true",
        help="without charges (--include_charges False, GEOM's default) let sampling reach the last atom type "
        "too; upstream cuts it off",
    )  # fmt: skip
    everyone.add_argument(
        "--keep_checkpoints", type=boolean, default=None,
        help="True | False: keep EDM's files of every epoch that was the best so far (generative_model_EPOCH.npy and "
        "so on; GEOM: of every one tested), as upstream does, besides the best's; default: True for EDM's models, "
        "False for the plugin's",
    )  # fmt: skip
    everyone.add_argument(
        "--debug_checks", action="store_true",
        help="assert at every step, as upstream does, that padding is zero, that positions are centred and that all "
        "of this is finite: samples that diverge then stop the run instead of being counted as molecules, and the "
        "EGNN says when its output is NaN. The host waits for the GPU at each, over ten times a step",
    )  # fmt: skip
    if _is_geom(parser):
        geom.add_flags(everyone)
    ours = parser.add_argument_group(
        f"of the plugin's models ({', '.join(PRESETS)})", "Defaults are the preset's."
    )
    flags = {}
    for field in fields(Architecture):
        flags[field.name] = _FLAG.get(field.name, f"--{field.name}")
        ours.add_argument(
            flags[field.name], dest=field.name, type=type(field.default), default=argparse.SUPPRESS,
            choices=_CHOICES.get(field.name), help=_HELP[field.name],
        )  # fmt: skip
    for name, text in _TRAINING_HELP.items():
        flags[name] = f"--{name}"
        kind = float if name in ("weight_decay", "clip_norm") else boolean
        ours.add_argument(flags[name], type=kind, default=argparse.SUPPRESS, help=text)
    flags["init_from"] = "--init_from"
    ours.add_argument("--init_from", metavar="PATH", default=argparse.SUPPRESS, help=init_from.HELP)
    flags["compile"] = "--compile"
    ours.add_argument(
        "--compile", nargs="?", const="default", choices=presets.COMPILE_MODES, default=argparse.SUPPRESS,
        help="put the blocks of the networks through torch.compile: default (what --compile alone means), "
        "reduce-overhead (CUDA graphs) or off; about a minute at the start, and on two CPU cores no gain: for GPUs",
    )  # fmt: skip
    return flags


def _is_geom(parser: argparse.ArgumentParser) -> bool:
    """Whether it is the parser of main_geom_drugs.py."""
    return any(action.dest == "filter_molecule_size" for action in parser._actions)


def _preset_defaults(args: argparse.Namespace) -> dict[str, Any]:
    preset = PRESETS[args.model]
    defaults = {name: getattr(preset.architecture, name) for name in ARCHITECTURE_FIELDS}
    if getattr(args, "compat", "paper") != "paper":
        defaults.update(preset.release)
    defaults.update(preset.training_flags("geom" if args.dataset == "geom" else "qm9"))
    defaults["exp_name"] = args.model
    if hasattr(args, "datadir"):
        defaults["datadir"] = str(default_datadir())
    return defaults


def _check_values(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for name, least in _AT_LEAST.items():
        if hasattr(args, name) and not getattr(args, name) >= least:
            _refuse(parser, f"--{name} must be at least {least}, not {getattr(args, name)}")
    if not args.lr > 0:
        _refuse(parser, f"--lr must be positive, not {args.lr}")
    if not 0 <= args.ema_decay < 1:
        _refuse(parser, f"--ema_decay must lie in [0, 1), not {args.ema_decay}")
    if args.seed is not None and not 0 <= args.seed < 2**32:
        _refuse(parser, f"--seed must lie between 0 and {2**32 - 1}, not {args.seed}")
    factors = args.normalize_factors
    if not isinstance(factors, list | tuple) or len(factors) != 3 or not all(
        isinstance(factor, int | float) and factor > 0 for factor in factors
    ):  # fmt: skip
        _refuse(parser, f"--normalize_factors must be three positive numbers such as [1,4,10], not {factors}")
    if not is_plugin_model(args):
        return
    try:
        get_architecture(args.model, **architecture_overrides(args))
    except ValueError as error:
        _refuse(parser, str(error))
    if not args.clip_norm > 0:
        _refuse(parser, f"--clip_norm must be positive, not {args.clip_norm}")
    if not args.weight_decay >= 0:
        _refuse(parser, f"--weight_decay must not be negative, but is {args.weight_decay}")
    if args.compile != "off" and not _has_compiler():
        _refuse(parser, "--compile needs a C++ compiler: install g++ or clang++, or leave --compile out")
    if not args.condition_time:
        _refuse(parser, "--condition_time False is for EDM's models: the plugin's always see the time")


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name)


def _check_combinations(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what upstream answers with a traceback minutes later, or with nonsense."""
    datasets = GEOM_DATASETS if _is_geom(parser) else QM9_DATASETS
    if args.dataset not in datasets:
        _refuse(
            parser,
            f"{parser.prog} cannot train on --dataset {args.dataset}; choose one of {', '.join(datasets)}",
        )
    if args.remove_h and args.dataset != "qm9":
        _refuse(parser, f"--remove_h is for --dataset qm9 alone: EDM has no statistics of {args.dataset} without H")
    if args.conditioning and args.dataset == "geom":
        _refuse(parser, "--conditioning needs QM9: the GEOM data set of EDM has no properties")


def _check_data(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.dataset == "geom":
        if fault := geom.missing(args.data_file):
            _refuse(parser, fault)
        return
    from symdiff_plugin.data.plausible import NEEDED
    from symdiff_plugin.data.schema import KEYS, SPLITS, split_path
    from symdiff_plugin.data.store import check_datadir

    if is_plugin_model(args) or any(split_path(args.datadir, split).exists() for split in SPLITS):
        try:
            check_datadir(args.datadir, KEYS if is_plugin_model(args) else NEEDED)
        except (OSError, ValueError) as error:
            _refuse(parser, " ".join(str(error).split()))
    else:
        print(
            f"No QM9 in {Path(args.datadir) / 'qm9'}: EDM now downloads it from figshare, which refuses many. If it "
            f"fails, `python -m symdiff_plugin.data.qm9 --datadir {args.datadir}` makes the same files.",
            file=sys.stderr,
        )
