"""What EDM's scripts ``eval_analyze.py``, ``eval_sample.py`` and ``eval_conditional_qm9.py`` read: flags and runs.

Upstream unpickles whatever ``args.pickle`` holds, and answers a user's mistake with a traceback, or by ignoring it: a
flag that is not known, a run without properties. Here every mistake is one line and exit status 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from symdiff_plugin.common.command_line import plain
from symdiff_plugin.common.kinds import BOOLEAN, whole
from symdiff_plugin.common.weights import read_state_dict
from symdiff_plugin.process import sampler
from symdiff_plugin.process.probabilistic_model import NO_LIKELIHOOD, has_likelihood
from symdiff_plugin.training import args_pickle, released

# By upstream's type: every whole number counts something, and what it evaluates is True or False.
_KINDS = {eval: BOOLEAN, int: whole()}
_MAY_BE_ZERO = ("n_chains",)

_sampling: dict[str, Any] = {}  # the flags of the sampler of the script that runs: it hands them to nobody


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of an evaluation script, all of it.

    Raises:
        ArgumentsError: a flag is unknown or has no such value.
    """

    def refuse(message: str) -> NoReturn:
        raise args_pickle.ArgumentsError(f"{plain(message)} (--help lists the flags)")

    parser.error = refuse  # type: ignore[method-assign]
    for action in parser._actions:
        kind = whole(0) if action.dest in _MAY_BE_ZERO else _KINDS.get(action.type)
        if kind is not None:
            action.type, action.metavar = kind, kind.metavar
    sampler.add_sampler_flags(parser.add_argument)
    options = parser.parse_args(argv)
    _sampling.clear()
    _sampling.update((name, getattr(options, name)) for name in sampler.KINDS)
    return options


def script_arguments(folder: str, conditional: bool = False) -> argparse.Namespace:
    """The arguments of the run in ``folder``, to be sampled as :func:`parse` was told.

    See :func:`symdiff_plugin.training.released.run_arguments`.

    Args:
        folder: of the run.
        conditional: refuse a run that learned no property, or on other data than the half that EDM's classifiers
            did not see.

    Raises:
        ArgumentsError: it has none that can be used.
    """
    args = released.run_arguments(folder)
    if conditional and (not args.conditioning or args.dataset != "qm9_second_half"):
        raise args_pickle.ArgumentsError(
            f"{folder} is no conditional model on the second half of QM9: give --generators_path a run trained with "
            "--conditioning PROPERTY --dataset qm9_second_half"
        )
    vars(args).update(sampler.chosen(_sampling, vars(args)))
    print(f"{folder}: recognised {args.recognised}, sampled by {sampler.Sampler.of(vars(args), args.diffusion_steps)}")
    if not has_likelihood(args):
        print(f"{NO_LIKELIHOOD}: what is printed as NLL below is its training loss")
    return args


def classifier_arguments(folder: str) -> argparse.Namespace:
    """The arguments of one of EDM's property classifiers.

    Raises:
        ArgumentsError: they are missing or damaged.
    """
    try:
        return args_pickle.read_args_pickle(Path(folder) / args_pickle.FILE_NAME)
    except args_pickle.ArgumentsError as error:
        where = "--classifiers_path is the folder of qm9/property_prediction/main_qm9_prop.py's run"
        raise args_pickle.ArgumentsError(f"{error} ({where})") from error


def load_weights(path: str, map_location: Any = "cpu") -> dict[str, Tensor]:
    """The weights of a whole model, under our names if they are of the authors' release; nothing is executed.

    Raises:
        ValueError: they are missing, damaged or not finite.
    """
    state = read_state_dict(Path(path))
    state = released.whole_model(state) if released.is_release(state) else state
    return {name: value.to(torch.device(map_location)) for name, value in state.items()}
