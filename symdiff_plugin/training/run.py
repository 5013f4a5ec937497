"""A training run and its folder ``outputs/NAME``: resolved configuration, history, checkpoints, going on."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import platform
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from signal import Signals
from typing import Any, NoReturn

import torch
from torch import nn

from symdiff_plugin.common.files import Changes, finish_changes, remove_leftovers, why_unwritten, write_json
from symdiff_plugin.common.lock import Lock, LockedError
from symdiff_plugin.common.progress import counting
from symdiff_plugin.common.workers import rest_of
from symdiff_plugin.data.store import split_sizes
from symdiff_plugin.edm import PINNED_SHA, REPOSITORY_ROOT, EdmError
from symdiff_plugin.edm.git import line as git_line
from symdiff_plugin.presets import PRESETS, get_architecture
from symdiff_plugin.process.probabilistic_model import NO_LIKELIHOOD, has_likelihood
from symdiff_plugin.training import checkpoint
from symdiff_plugin.training.arguments import architecture_overrides, is_plugin_model
from symdiff_plugin.training.checkpoint import Position, TrainingState
from symdiff_plugin.training.gamma_history import GammaHistory
from symdiff_plugin.training.history import HISTORY, History
from symdiff_plugin.training.interrupt import Interrupts
from symdiff_plugin.training.optim import set_learning_rates, skipped_steps
from symdiff_plugin.training.run_config import CONFIG
from symdiff_plugin.training.tracker import tracker

_MINUTES_BETWEEN_EPOCHS = 10.0  # between checkpoints at epochs' ends under --checkpoint_minutes 0
_LIBRARIES = ("torch", "numpy", "rdkit", "scipy", "symdiff-plugin")


class Run:
    """One training run: writes its folder, epoch after epoch.

    Args:
        args: the run's arguments; ``start_epoch`` is set if the run goes on from a checkpoint.
        state: what the training loop carries along; restored from ``args.resume_from`` if that is set.

    Raises:
        SystemExit: status 2 and one line if the checkpoint cannot be used, 1 if the folder cannot be written or another
            process has it.
    """

    def __init__(self, args: Namespace, state: TrainingState) -> None:
        self.args = args
        self.folder = Path("outputs") / args.exp_name
        self._path = self.folder / checkpoint.FILE_NAME
        self._state = state
        self._position = Position(args.start_epoch, rng=checkpoint.rng_state())
        resume_from = getattr(args, "resume_from", None)
        try:
            self._lock = Lock(self.folder, "training")
            self._tidy()
            if resume_from is not None:
                self._go_on(Path(resume_from))
            write_json(self.folder / CONFIG, describe(args, state.model))
            more = GammaHistory(state.model.dynamics)
            likelihood = has_likelihood(args)
            self.history = History(
                self.folder, args.n_report_steps, args.start_epoch, more=more, likelihood=likelihood,
                inside=self._position.history,
            )  # fmt: skip
        except LockedError as error:
            raise SystemExit(f"error: {error}") from None
        except OSError as error:
            raise SystemExit(f"error: {why_unwritten(self.folder, error)}") from None
        except ValueError as error:  # a checkpoint or a history that cannot be used
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        tracker.listeners[:] = [self.history]
        self._saved, self._cost = time.monotonic(), 0.0  # when, and in how many seconds
        self._unsaved = False  # whether something was done since
        self._weights = Changes(self.folder)
        self._random: dict[str, Any] | None = None
        if not likelihood:
            print(f"{NO_LIKELIHOOD}: what is printed as NLL below is its loss, also of validation and test")
        print(f"Configuration, history and checkpoints of this run: {self.folder}")
        self._interrupts = Interrupts(self._end)

    def _tidy(self) -> None:
        """Finish or clear away what a killed process left, and under ``--overwrite`` the run that was there."""
        finish_changes(self.folder)
        if left := remove_leftovers(self.folder):
            print(f"Removed what a killed process left half-written in {self.folder}: {left / 1e6:.1f} MB")
        if getattr(self.args, "overwrite", False):
            earlier = Changes(self.folder)
            for name in checkpoint.RUN_FILES:
                earlier.remove(name)
            earlier.commit()

    def _go_on(self, path: Path) -> None:
        """Restore the checkpoint ``path``; under another name the best weights and the history come along.

        The best NLL so far stands only where the weights that reached it are: they are what is evaluated.

        Raises:
            CheckpointError: it cannot be used.
            OSError: the best weights cannot be brought along.
        """
        args, state = self.args, self._state
        self._position = checkpoint.restore(path, state, args)
        args.start_epoch = self._position.epoch
        left = max(args.n_epochs - args.start_epoch, 0)
        steps = f" and {self._position.done} steps" if self._position.inside else ""
        print(f"Going on from {path}: {args.start_epoch} epochs{steps} done, {left} of --n_epochs left")
        if args.resumed:
            print(f"Changed on the way: {'; '.join(args.resumed)}")
        if not (path.parent / checkpoint.best_weights(args)).is_file() and state.best_nll != checkpoint.NO_NLL:
            print(f"The weights of the best epoch are not in {path.parent}: from here on the best begins anew")
            state.best_nll = checkpoint.NO_NLL
        if path.resolve().parent != self.folder.resolve():
            checkpoint.carry_along(path.parent, self.folder, args, state, self._position)

    def batches(self, loader: Any, epoch: int, losses: list[Any]) -> Iterator[tuple[int, Any]]:
        """The numbered batches of an epoch, those left out that were done before; what is kept is kept between them.

        Args:
            loader: of the training data.
            epoch: its number.
            losses: where the training loop puts those of its steps; it is given those of the steps before.
        """
        at = self._position
        if at.inside:  # the generators are where the last step left them, and the order comes from the epoch's start
            assert at.order is not None
            torch.set_rng_state(at.order)
            loader = rest_of(loader, at.done, at.batch_size)
        else:
            at.order, at.batch_size = torch.get_rng_state(), loader.batch_sampler.batch_size
        losses.extend(at.losses)
        at.losses = losses
        total = at.done + len(loader)
        remaining = iter(loader)
        batch = next(remaining, None)  # with it the loader has drawn all that it draws
        if at.inside:
            assert at.rng is not None
            torch.set_rng_state(at.rng["torch"])
        with counting(f"Epoch {epoch}", total, done=at.done) as advance:
            while batch is not None:
                at.rng, self._interrupts.waiting = None, True
                set_learning_rates(self.args, self._state.optim, epoch * total + at.done, self.args.n_epochs * total)
                yield at.done, batch
                advance(1)
                self._end_step(at.done + 1 == total)
                batch = next(remaining, None)
        at.rng = checkpoint.rng_state()  # a test may follow, which is done anew if it is cut short
        if self.args.save_model and not self._path.exists():
            self._save()  # so that best weights are never alone
        self._interrupts.waiting = False
        self._interrupts.check()

    def _end_step(self, last: bool) -> None:
        self._position.done += 1
        self._unsaved = True
        if last:
            self.history.write_losses()
        self._interrupts.check()
        if self.args.save_model and is_due(self.args.checkpoint_minutes, time.monotonic() - self._saved, self._cost):
            self._save()

    def _save(self) -> None:
        """Write the checkpoint.

        Raises:
            SystemExit: status 1 and one line if it cannot be written.
        """
        self._position.history = self.history.inside()
        began = time.monotonic()
        try:
            checkpoint.save_checkpoint(self._path, self._state, self.args, self._position)
        except OSError as error:
            self._cannot_write(self._path, error)
        self._saved = time.monotonic()
        self._cost = self._saved - began
        self._unsaved = False

    def _cannot_write(self, path: Path, error: OSError) -> NoReturn:
        self._weights.discard()
        go_on = f"; then go on with --resume {self.folder}" if self._path.is_file() else ""
        raise SystemExit(f"error: {why_unwritten(path, error)}{go_on}") from None

    def _end(self, cause: Signals) -> NoReturn:
        """Keep what is done and end with the status that a shell gives to a process that died of ``cause``.

        Raises:
            SystemExit: always.
        """
        if self._unsaved and self.args.save_model:
            self._save()
        name = "Ctrl-C" if cause == Signals.SIGINT else cause.name
        at = self._position
        if self._path.is_file():
            where = f"{at.epoch} epochs and {at.done} steps are done; --resume {self.folder} goes on from there"
        else:
            where = "no checkpoint was written; start again"
        print(f"{name}: stopped; {where}", file=sys.stderr)
        raise SystemExit(128 + cause)

    def save_weights(self, state: dict[str, Any], path: str) -> None:
        """Write what takes the place of ``path`` together with the arguments, see :meth:`save_arguments`.

        Raises:
            SystemExit: status 1 and one line if it cannot be written; nothing was changed.
        """
        self._interrupts.waiting = True
        try:
            checkpoint.write_tensors(state, self._weights.open(Path(path).name))
        except OSError as error:
            self._cannot_write(Path(path), error)

    def save_arguments(self, args: Namespace, path: str) -> None:
        """Write ``args`` and put them and the weights written since the last ones in place, all or none.

        Raises:
            SystemExit: status 1 and one line if it cannot be written; nothing was changed.
        """
        try:
            pickle.dump(args, self._weights.open(Path(path).name))
            self._weights.commit()
        except OSError as error:
            self._cannot_write(Path(path), error)
        self._interrupts.waiting = False
        self._interrupts.check()

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

        One is due after every epoch that was evaluated, after the last, and after others if ``--checkpoint_minutes``
        have passed since: it is as large as five copies of the model.

        Raises:
            SystemExit: status 1 and one line if the disk is full, or no step of the training could be taken.
        """
        self._interrupts.waiting = True
        if self._random is not None:
            checkpoint.set_rng_state(self._random)
            self._random = None
        self._state = state
        self._position = Position(epoch + 1, rng=checkpoint.rng_state())
        self._unsaved = True
        last = epoch + 1 == self.args.n_epochs
        if last:
            skipped_steps(state.queue).finish(self.args)
        minutes = self.args.checkpoint_minutes or _MINUTES_BETWEEN_EPOCHS
        due = epoch % self.args.test_epochs == 0 or time.monotonic() - self._saved >= 60 * minutes
        try:
            self.history.end_epoch(self._state.optim.param_groups[0]["lr"])
        except OSError as error:
            self._cannot_write(self.folder / HISTORY, error)
        if self.args.save_model and (due or last):
            self._save()
        self.history.start_epoch()
        if last:
            print(f"Trained; the results are in {self.folder}")
        self._interrupts.waiting = False
        self._interrupts.check()


def is_due(minutes: float, since: float, cost: float) -> bool:
    """Whether a checkpoint is due inside an epoch.

    Those that take over a second, of large models or on slow disks, take no more than a hundredth of the time.

    Args:
        minutes: of ``--checkpoint_minutes``; 0 for none.
        since: seconds since the last one.
        cost: seconds that it took.
    """
    return minutes > 0 and since >= max(60 * minutes, 100 * cost if cost > 1 else 0)


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
