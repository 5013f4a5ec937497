"""A training run and its folder ``outputs/NAME``: resolved configuration, history, checkpoints, going on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
import time
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from symdiff_plugin.common.files import write_json
from symdiff_plugin.data.store import split_sizes
from symdiff_plugin.edm import PINNED_SHA, REPOSITORY_ROOT, EdmError
from symdiff_plugin.edm.git import line as git_line
from symdiff_plugin.presets import PRESETS, get_architecture
from symdiff_plugin.process.probabilistic_model import NO_LIKELIHOOD, has_likelihood
from symdiff_plugin.training import checkpoint
from symdiff_plugin.training.arguments import architecture_overrides, is_plugin_model
from symdiff_plugin.training.checkpoint import TrainingState
from symdiff_plugin.training.gamma_history import GammaHistory
from symdiff_plugin.training.history import History
from symdiff_plugin.training.interrupt import explain_interrupts
from symdiff_plugin.training.optim import skipped_steps
from symdiff_plugin.training.run_config import CONFIG
from symdiff_plugin.training.tracker import tracker

MINUTES_BETWEEN_CHECKPOINTS = 10.0
_LIBRARIES = ("torch", "numpy", "rdkit", "scipy", "symdiff-plugin")


class Run:
    """One training run: writes its folder, epoch after epoch.

    Args:
        args: the run's arguments; ``start_epoch`` is set if the run goes on from a checkpoint.
        state: what the training loop carries along; restored from ``args.resume_from`` if that is set.

    Raises:
        SystemExit: status 2 and one line if the checkpoint cannot be used, 1 if the folder cannot be written.
    """

    def __init__(self, args: Namespace, state: TrainingState) -> None:
        self.args = args
        self.folder = Path("outputs") / args.exp_name
        resume_from = getattr(args, "resume_from", None)
        try:
            if resume_from is not None:
                self._go_on(Path(resume_from), state)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / CONFIG, describe(args, state.model))
            more = GammaHistory(state.model.dynamics)
            likelihood = has_likelihood(args)
            self.history = History(self.folder, args.n_report_steps, args.start_epoch, more=more, likelihood=likelihood)
        except OSError as error:
            raise SystemExit(f"error: cannot write {self.folder} ({error.strerror or error}): make room") from None
        except ValueError as error:  # a checkpoint or a history that cannot be used
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        tracker.listeners[:] = [self.history]
        explain_interrupts(self.folder)
        self._saved = time.monotonic()
        self._random: dict[str, Any] | None = None
        if not likelihood:
            print(f"{NO_LIKELIHOOD}: what is printed as NLL below is its loss, also of validation and test")
        print(f"Configuration, history and checkpoints of this run: {self.folder}")

    def _go_on(self, path: Path, state: TrainingState) -> None:
        """Restore the checkpoint ``path``; under another name the best weights and the history come along.

        The best NLL so far stands only where the weights that reached it are: they are what is evaluated.

        Raises:
            CheckpointError: it cannot be used.
            OSError: the best weights cannot be brought along.
        """
        args = self.args
        args.start_epoch = checkpoint.restore(path, state, args)
        left = max(args.n_epochs - args.start_epoch, 0)
        print(f"Going on from {path}: {args.start_epoch} epochs done, {left} of --n_epochs left")
        if args.resumed:
            print(f"Changed on the way: {'; '.join(args.resumed)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        if path.resolve().parent != self.folder.resolve():
            checkpoint.carry_along(path.parent, self.folder, args)
        if not (self.folder / checkpoint.best_weights(args)).is_file() and state.best_nll != checkpoint.NO_NLL:
            print(f"The weights of the best epoch are not in {path.parent}: from here on the best begins anew")
            state.best_nll = checkpoint.NO_NLL

    def is_tested(self, epoch: int) -> bool:
        """Whether ``epoch`` ends with a test: every ``--test_epochs``-th from the first, and the last.

        A last epoch that is no such one is tested beside the run: :meth:`end_epoch` puts the random generators back,
        so that going on with more ``--n_epochs`` trains as if that had been their number from the start.
        """
        if epoch % self.args.test_epochs == 0:
            return True
        if epoch + 1 != self.args.n_epochs:
            return False
        self._random = checkpoint.rng_state()
        return True

    def end_epoch(self, epoch: int, state: TrainingState) -> None:
        """Write the epoch's line of the history and, where it is due, a checkpoint.

        One is due after every epoch that was evaluated, after the last, and after others if ten minutes have
        passed since: it is as large as five copies of the model.

        Raises:
            SystemExit: status 1 and one line if the disk is full, or no step of the training could be taken.
        """
        if self._random is not None:
            checkpoint.set_rng_state(self._random)
            self._random = None
        now = time.monotonic()
        last = epoch + 1 == self.args.n_epochs
        if last:
            skipped_steps(state.queue).finish(self.args)
        due = epoch % self.args.test_epochs == 0 or now - self._saved >= 60 * MINUTES_BETWEEN_CHECKPOINTS
        path = self.folder / checkpoint.FILE_NAME
        try:
            self.history.end_epoch(self.args.lr)
            if self.args.save_model and (due or last):
                checkpoint.save_checkpoint(path, state, self.args, epoch + 1)
                self._saved = now
        except OSError as error:
            raise SystemExit(
                f"error: cannot write {path} ({error.strerror or error}): make room, then go on with "
                f"--resume {self.folder} if there is a checkpoint"
            ) from None
        self.history.start_epoch()
        if last:
            print(f"Trained; the results are in {self.folder}")


def describe(args: Namespace, model: Any) -> dict[str, Any]:
    """The resolved configuration of a run, for ``config.json``.

    Args:
        args: the run's arguments.
        model: EDM's diffusion model, its network under ``dynamics``.
    """
    record: dict[str, Any] = {"model": args.model, "command": shlex.join(sys.argv), "seed": args.seed}
    if is_plugin_model(args):
        record["preset"] = PRESETS[args.model].label
        record["architecture"] = asdict(get_architecture(args.model, **architecture_overrides(args)))
        if getattr(args, "init_from", None) is not None:
            record["init_from"] = {"path": args.init_from, "sha256": args.init_from_sha256}
    record["parameters"] = count_parameters(model.dynamics)
    if args.dataset == "qm9":
        record["molecules"] = split_sizes(args.datadir)
    record["args"] = {name: _plain(value) for name, value in sorted(vars(args).items())}
    record["versions"] = {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}}
    record["versions"]["edm"] = PINNED_SHA
    record["versions"]["commit"] = _commit(REPOSITORY_ROOT)
    record["device"] = torch.cuda.get_device_name() if args.cuda else f"cpu, {torch.get_num_threads()} threads"
    return record


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Parameters of ``network``: in all; for the plugin's, of its two parts; ``trainable``, where some are frozen."""
    counts = {"total": sum(p.numel() for p in network.parameters())}
    if is_plugin_network(network):
        f_theta = getattr(network, "f_theta", None)
        part = 0 if f_theta is None else sum(p.numel() for p in f_theta.parameters())
        counts.update(epsilon_theta=counts["total"] - part, f_theta=part)
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return counts if trainable == counts["total"] else {**counts, "trainable": trainable}


def is_plugin_network(network: nn.Module) -> bool:
    """Whether ``network`` is one of the plugin's dynamics."""
    from symdiff_plugin.model.dynamics import DiTDynamics

    return isinstance(network, DiTDynamics)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit of the repository at ``folder``, with ``-dirty`` if files differ; None if it is none."""
    try:
        top = git_line("rev-parse", "--show-toplevel", cwd=folder)
        if top is None or not os.path.samefile(top, folder):
            return None
        return git_line("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*", cwd=folder)
    except (EdmError, OSError):
        return None
