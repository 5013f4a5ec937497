"""Arguments of a run: the plugin's flags, added to those of EDM's training scripts.

``--model`` takes EDM's own names and the presets'. A preset brings the paper's settings as defaults; an
explicit flag always wins. With one of EDM's models every default is EDM's own. What a flag may be, for which models it
does something, and whether a resumed run may change it, is in :mod:`symdiff_plugin.training.flag_table`; a flag that
does nothing for the model is refused rather than ignored.

What follows holds for every model: EDM's ``type=eval`` flags accept Python literals only, ``--online False``
means False (upstream's ``type=bool`` takes any text for True), and every mistake is one line and exit status 2.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from symdiff_plugin.common.command_line import plain
from symdiff_plugin.data.geom import flags as geom
from symdiff_plugin.data.integrity import data_hash, sampled_hash
from symdiff_plugin.edm import REPOSITORY_ROOT
from symdiff_plugin.presets import ARCHITECTURE_FIELDS, PRESETS, get_architecture
from symdiff_plugin.process import probabilistic_model, sampler
from symdiff_plugin.training import checkpoint, earlier_run, flag_table, init_from
from symdiff_plugin.training.debug_checks import enable_checks
from symdiff_plugin.training.flag_table import FLAGS, GEOM_DATASETS, HELP, QM9_DATASETS

_FLAG = {"compat": "--symdiff_compat"}  # the others are called like their field


def default_datadir() -> Path:
    """Where the set-up scripts put the data: ``data/`` of the repository, or of the working directory where
    the plugin was installed without it."""
    return REPOSITORY_ROOT / "data" if (REPOSITORY_ROOT / "patches").is_dir() else Path("data").resolve()


def is_plugin_model(args: Any) -> bool:
    """Whether a run's arguments, old pickles included, ask for one of the plugin's models."""
    return getattr(args, "model", None) in PRESETS


def architecture_overrides(args: Any) -> dict[str, Any]:
    """The fields of :class:`~symdiff_plugin.presets.Architecture` that a run's arguments hold."""
    return {name: getattr(args, name) for name in ARCHITECTURE_FIELDS if hasattr(args, name)}


def parse_args(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of ``main_qm9.py`` or ``main_geom_drugs.py``, with the plugin's flags.

    What was given wins over the run that is resumed, that over the preset, that over EDM's defaults. ``--resume PATH``
    takes a run's folder or checkpoint, ``--resume auto`` the folder of this run, if it has a checkpoint; what a run
    that goes on must not change is refused, and what it changes is said in ``resumed``. A ``--seed`` is set here,
    before EDM draws its first number, and so are the checks of ``--debug_checks``.

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
    parser.error = lambda message: _refuse(parser, f"{plain(message)} (--help lists the flags)")  # type: ignore
    _add_flags(parser)
    for action in parser._actions:
        if action.dest != "help" and action.nargs != 0:
            action.type = FLAGS[action.dest].kind
    defaults = {action.dest: action.default for action in parser._actions if action.default != argparse.SUPPRESS}
    given = _given(parser, argv)
    resumed = _checkpoint_to_resume(parser, {**defaults, **given})
    before: dict[str, Any] = {} if resumed is None else resumed[1]["args"]

    model = given.get("model", before.get("model", defaults["model"]))
    process = given.get("probabilistic_model", before.get("probabilistic_model", probabilistic_model.DIFFUSION))
    if resumed is None:
        if model in PRESETS:
            defaults |= _preset_defaults(model, {**defaults, **given})
        defaults |= _process_defaults(process)
    else:
        if before["model"] in PRESETS:
            defaults |= _preset_defaults(before["model"], {**defaults, **before})
        defaults |= {name: before[name] for name in FLAGS if name in before and FLAGS[name].resumed != "anew"}
        folder = resumed[0].resolve().parent
        defaults["exp_name"] = folder.name if folder.parent == Path("outputs").resolve() else before["exp_name"]
    args = argparse.Namespace(**{**defaults, **given, **sampler.chosen(given, defaults), "model": model})
    args.resume_from = None if resumed is None else str(resumed[0])
    if args.keep_checkpoints is None:
        args.keep_checkpoints = not is_plugin_model(args)
    _check_values(parser, args)
    if idle := [name for name in given if not flag_table.concerns(name, model)]:
        wanted = FLAGS[idle[0]].models
        _refuse(
            parser,
            f"{_names(parser, idle)}: for {', '.join(wanted)} alone, not for --model {model}; leave it out, or choose "
            f"one of {', '.join(PRESETS if flag_table.OURS in wanted else wanted)}",
        )
    if getattr(args, "frame", "learned") != "learned" and (idle := [n for n in flag_table.F_THETA if n in given]):
        _refuse(
            parser,
            f"{_names(parser, idle)}: of f_theta, which --model {model} with --frame {args.frame} lacks; leave it out, "
            "or choose --frame learned",
        )
    if idle := [name for name in given if process not in probabilistic_model.processes_of(name)]:
        _refuse(
            parser,
            f"{_names(parser, idle)}: for --probabilistic_model "
            f"{' or '.join(probabilistic_model.processes_of(idle[0]))} alone, not for {process}; leave it out",
        )
    args.resumed = [] if resumed is None else _what_changes(parser, *resumed, {**defaults, **before}, args)
    _check_combinations(parser, args)
    try:
        sampler.Sampler.of(vars(args), args.diffusion_steps)
    except ValueError as error:
        _refuse(parser, str(error))
    if is_plugin_model(args):
        try:
            architecture = get_architecture(args.model, **architecture_overrides(args))
            init_from.check_initial_weights(args, architecture, before or None)
        except init_from.InitError as error:
            _refuse(parser, str(error))
    _check_data(parser, args)
    _identify_data(parser, args, before)
    if fault := earlier_run.why_spared(args):
        _refuse(parser, fault)
    args.resume = None  # EDM's own way to resume, which reads files that nothing writes
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


def _given(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> dict[str, Any]:
    """What the command line itself says, without a default."""
    defaults = [(action, action.default) for action in parser._actions]
    for action, _ in defaults:
        action.default = argparse.SUPPRESS
    try:
        return vars(parser.parse_args(argv))
    finally:
        for action, default in defaults:
            action.default = default


def _checkpoint_to_resume(
    parser: argparse.ArgumentParser, values: dict[str, Any]
) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that ``--resume`` asks for and what is in it; None for a run that starts afresh."""
    if values["resume"] is None:
        return None
    if values["resume"] == "auto":
        name = values["exp_name"]
        if name == parser.get_default("exp_name") and values["model"] in PRESETS:
            name = values["model"]
        path = checkpoint.find_checkpoint(Path("outputs") / name)
        if not path.exists():
            return None
    else:
        path = checkpoint.find_checkpoint(values["resume"])
    try:
        record = checkpoint.load_checkpoint(path, mmap=True)
    except checkpoint.CheckpointError as error:
        _refuse(parser, str(error))
    if fault := flag_table.fault(record["args"]):
        _refuse(parser, f"{path} is damaged (its {fault[0]} {fault[1]}): resume from another one")
    return path, record


def _what_changes(
    parser: argparse.ArgumentParser,
    path: Path,
    record: dict[str, Any],
    before: dict[str, Any],
    args: argparse.Namespace,
) -> list[str]:
    """What every start of the run so far changed, a line each; a change that the run does not bear is refused."""
    changed = flag_table.changed_settings(before, vars(args))
    words = {name: f"{_names(parser, [name])} {old} -> {new}" for name, (old, new) in changed.items()}
    if refused := [name for name in changed if FLAGS[name].resumed == "same"]:
        _refuse(
            parser,
            f"a run that goes on keeps its flags, and {path} was trained with others: "
            f"{', '.join(words[name] for name in refused)}; leave out what changes, or train anew without --resume and "
            "under another --exp_name",
        )
    lines = list(record["args"].get("resumed", []))
    return [*lines, f"after {record['epoch']} epochs: {', '.join(words.values())}"] if words else lines


def _names(parser: argparse.ArgumentParser, names: Iterable[str]) -> str:
    """The flags of the arguments called ``names``, as they are written."""
    return ", ".join(action.option_strings[0] for action in parser._actions if action.dest in names)


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    if not parser.exit_on_error:
        raise argparse.ArgumentError(None, message)
    parser.exit(2, f"{parser.prog}: error: {message}\n")


def _add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the plugin's flags; those of its models without a default, so that EDM's models do not get them."""
    everyone = parser.add_argument_group("added by symdiff_plugin, for every model")
    everyone.add_argument("--seed", default=None, help="seed of every random number of the run")
    everyone.add_argument(
        "--all_classes", action="store_true",
        help="without charges (--include_charges False, GEOM's default) let sampling reach the last atom type "
        "too; upstream cuts it off",
    )  # fmt: skip
    everyone.add_argument(
        "--keep_checkpoints", default=None,
        help="True | False: keep EDM's files of every epoch that was the best so far (generative_model_EPOCH.npy and "
        "so on; GEOM: of every one tested), as upstream does, besides the best's; default: True for EDM's models, "
        "False for the plugin's",
    )  # fmt: skip
    everyone.add_argument(
        "--checkpoint_minutes",
        default=10.0,
        help="minutes between checkpoints, inside epochs too (10); 0: at epochs' ends alone",
    )
    everyone.add_argument(
        "--overwrite", action="store_true", help="train anew in the folder of an earlier run, which is removed"
    )
    everyone.add_argument(
        "--debug_checks", action="store_true",
        help="assert at every step, as upstream does, that padding is zero, that positions are centred and that all "
        "of this is finite: samples that diverge then stop the run instead of being counted as molecules, and the "
        "EGNN says when its output is NaN. The host waits for the GPU at each, over ten times a step",
    )  # fmt: skip
    for name, kind in probabilistic_model.KINDS.items():
        everyone.add_argument(f"--{name}", default=None, metavar=kind.metavar, help=probabilistic_model.HELP[name])
    sampler.add_sampler_flags(
        everyone.add_argument, sampler.EDMS, f"{sampler.EDMS}; of presets for CPUs {sampler.FAST}"
    )
    if _is_geom(parser):
        geom.add_flags(everyone)
    ours = parser.add_argument_group(f"of the plugin's models ({', '.join(PRESETS)})", "Defaults are the preset's.")
    for name, text in HELP.items():
        flag = _FLAG.get(name, f"--{name}")
        ours.add_argument(flag, dest=name, metavar=FLAGS[name].kind.metavar, default=argparse.SUPPRESS, help=text)
    ours.add_argument("--init_from", metavar="PATH", default=argparse.SUPPRESS, help=init_from.HELP)
    ours.add_argument(
        "--compile", nargs="?", const="default", metavar=FLAGS["compile"].kind.metavar, default=argparse.SUPPRESS,
        help="put the blocks of the networks through torch.compile: default (what --compile alone means), "
        "reduce-overhead (CUDA graphs) or off; about a minute at the start, and on two CPU cores no gain: for GPUs",
    )  # fmt: skip


def _is_geom(parser: argparse.ArgumentParser) -> bool:
    """Whether it is the parser of main_geom_drugs.py."""
    return any(action.dest == "filter_molecule_size" for action in parser._actions)


def _preset_defaults(model: str, values: dict[str, Any]) -> dict[str, Any]:
    preset = PRESETS[model]
    defaults = {name: getattr(preset.architecture, name) for name in ARCHITECTURE_FIELDS}
    if values.get("compat", "paper") != "paper":
        defaults.update(preset.release)
    data = "geom" if values["dataset"] == "geom" else "qm9"
    defaults.update(preset.training_flags(data, values.get("recipe")))
    if not hasattr(torch.optim, "Muon"):  # the rest of the recipe is worth having without it
        defaults["optimizer"] = "adamw"
    defaults["exp_name"] = model
    if "datadir" in values:
        defaults["datadir"] = str(default_datadir())
    return defaults


def _process_defaults(process: str) -> dict[str, Any]:
    """The process's own flags and, where it is not EDM's, its usual sampler in the place of the preset's."""
    own = {name: value for name, (of, value) in probabilistic_model.DEFAULTS.items() if of == process}
    return own if process == probabilistic_model.DIFFUSION else {**own, "sampler": sampler.USUAL.get(process)}


def _check_values(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if fault := flag_table.fault(vars(args)):
        _refuse(parser, f"{_names(parser, [fault[0]])} {fault[1]}")
    if not is_plugin_model(args):
        return
    try:
        get_architecture(args.model, **architecture_overrides(args))
    except ValueError as error:
        _refuse(parser, str(error))
    if args.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        _refuse(parser, f"--optimizer muon needs PyTorch 2.9, and {torch.__version__} is installed")
    if args.compile != "off" and not _has_compiler():
        _refuse(parser, "--compile needs a C++ compiler: install g++ or clang++, or leave --compile out")


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
    largest = max(args.normalize_factors[1:])
    if args.probabilistic_model == probabilistic_model.FLOW:
        if 8 * args.flow_sigma > 1 / largest:
            _refuse(parser, f"--flow_sigma hides atom types and charges divided by {largest:g}: lower it")
        return
    if args.diffusion_noise_schedule == "learned":
        if args.diffusion_loss_type != "vlb":
            _refuse(parser, "--diffusion_noise_schedule learned is learned by --diffusion_loss_type vlb alone")
        return
    sigma = flag_table.first_sigma(args.diffusion_noise_schedule, args.diffusion_steps, args.diffusion_noise_precision)
    if 8 * sigma > 1 / largest:  # EDM's own condition, which it answers with a traceback
        _refuse(
            parser,
            f"the noise at t = 0 (sigma {sigma:.3g}) hides atom types and charges divided by {largest:g}: lower "
            "--diffusion_noise_precision or --normalize_factors (cosine: raise --diffusion_steps)",
        )


def _identify_data(parser: argparse.ArgumentParser, args: argparse.Namespace, before: dict[str, Any]) -> None:
    """Set ``data_sha256``, None where EDM will download the data; a run that goes on must find what it began with."""
    flag = "--data_file" if args.dataset == "geom" else "--datadir"
    place = getattr(args, flag.removeprefix("--"))
    try:
        args.data_sha256 = (sampled_hash if args.dataset == "geom" else data_hash)(place)
    except (OSError, zipfile.BadZipFile):
        args.data_sha256 = None
    known = before.get("data_sha256")
    if known and args.data_sha256 and known != args.data_sha256:
        was = before.get(flag.removeprefix("--"))
        _refuse(
            parser,
            f"{flag} {place} holds other data than the run to resume was trained on ({was}): name those, or train anew "
            "without --resume and under another --exp_name",
        )


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
