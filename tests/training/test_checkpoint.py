"""Checkpoints: nothing lost, nothing half-written, nothing executed."""

from __future__ import annotations

import copy
import errno
import pickle
import random
import resource
import signal
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from symdiff_plugin.common.files import why_unwritten
from symdiff_plugin.training import checkpoint
from symdiff_plugin.training.checkpoint import CheckpointError, TrainingState

ARGS = Namespace(model="symdiff", lr=0.1, conditioning=["alpha"], resume=None)


def make_state(seed: int = 0, width: int = 3, average: bool = True) -> TrainingState:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 1))
    optim = torch.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True, weight_decay=1e-3)
    return TrainingState(model, copy.deepcopy(model) if average else model, optim, Namespace(items=[3000.0]))


def step(state: TrainingState) -> float:
    """A training step with random data from each of the generators."""
    x = torch.randn(5, 4) + torch.from_numpy(np.random.randn(5, 4)).float() + random.gauss(0, 1)
    loss = state.model(x).pow(2).mean()
    state.optim.zero_grad()
    loss.backward()
    state.optim.step()
    state.queue.items.insert(0, loss.item())
    return loss.item()


@pytest.mark.parametrize("average", [True, False])
def test_training_goes_on_exactly(tmp_path: Path, average: bool) -> None:
    path = tmp_path / "run/checkpoint.pt"
    state = make_state(average=average)
    for _ in range(3):
        step(state)
    state.best_nll = (1.25, 2.5)
    checkpoint.save_checkpoint(path, state, ARGS, checkpoint.Position(7))
    expected = [step(state) for _ in range(3)]

    other = make_state(seed=9, average=average)
    np.random.seed(9)
    random.seed(9)
    step(other)
    assert checkpoint.restore(path, other, ARGS).epoch == 7
    assert other.best_nll == (1.25, 2.5)
    assert [step(other) for _ in range(3)] == expected
    assert other.queue.items == state.queue.items
    for a, b in ((state.model, other.model), (state.model_ema, other.model_ema)):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_the_learning_rate_is_the_command_lines(tmp_path: Path) -> None:
    state = make_state()
    step(state)
    checkpoint.save_checkpoint(tmp_path / "checkpoint.pt", state, ARGS, checkpoint.Position(1))
    other = make_state()
    other.optim.param_groups[0]["lr"] = 0.01
    checkpoint.restore(tmp_path / "checkpoint.pt", other, ARGS)
    assert other.optim.param_groups[0]["lr"] == 0.01
    assert len(other.optim.state) == len(state.optim.state) > 0


def test_the_file_holds_the_arguments(tmp_path: Path) -> None:
    checkpoint.save_checkpoint(tmp_path / "checkpoint.pt", make_state(), ARGS, checkpoint.Position(1))
    for mmap in (False, True):
        assert checkpoint.load_checkpoint(tmp_path / "checkpoint.pt", mmap=mmap)["args"] == vars(ARGS)


def test_another_model_is_refused_in_one_line(tmp_path: Path) -> None:
    checkpoint.save_checkpoint(tmp_path / "checkpoint.pt", make_state(width=3), ARGS, checkpoint.Position(1))
    with pytest.raises(CheckpointError, match="is of another model than --model symdiff with these flags") as error:
        checkpoint.restore(tmp_path / "checkpoint.pt", make_state(width=4), ARGS)
    assert "\n" not in str(error.value)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    """One byte of one weight changed."""
    position = content.index(make_state().model[0].weight.detach().numpy().tobytes())
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda content: b"", lambda content: b"no checkpoint at all"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save_checkpoint(path, make_state(), ARGS, checkpoint.Position(1))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="or no checkpoint: resume from another one") as error:
        checkpoint.load_checkpoint(path)
    assert "\n" not in str(error.value)


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    if legacy:
        path.write_bytes(pickle.dumps(Trap()))
    else:
        torch.save({"format": 1, "args": Trap()}, path)
    with pytest.raises(CheckpointError):
        checkpoint.load_checkpoint(path)
    assert not (tmp_path / "sprung").exists()


def test_another_torch_file_is_refused(tmp_path: Path) -> None:
    torch.save(make_state().model.state_dict(), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="is no checkpoint of this version"):
        checkpoint.load_checkpoint(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"no checkpoint .*nowhere"):
        checkpoint.load_checkpoint(checkpoint.find_checkpoint(tmp_path / "nowhere"))


def test_a_failed_write_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save_checkpoint(path, make_state(), ARGS, checkpoint.Position(1))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # as a full disk would: writing fails half-way
    try:
        with pytest.raises(OSError, match=r"."):
            checkpoint.save_checkpoint(path, make_state(width=5000), ARGS, checkpoint.Position(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_full_disk_is_said_by_its_name(tmp_path: Path) -> None:
    """torch says "enforce fail at inline_container.cc" of it."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with open(full, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left") as error:
        checkpoint.write_tensors({"x": torch.zeros(100_000)}, file)
    assert why_unwritten("a/checkpoint.pt", error.value) == (
        "cannot write a/checkpoint.pt: the disk is full: make room"
    )
    assert "read-only" in why_unwritten("a", OSError(errno.EROFS, "Read-only file system"))
    assert "not permitted" in why_unwritten("a", PermissionError(errno.EACCES, "Permission denied"))


def test_a_position_inside_an_epoch_is_kept(tmp_path: Path) -> None:
    state, path = make_state(), tmp_path / "checkpoint.pt"
    history = {"step": 7, "losses": [0.5], "row": {"train_loss": 1.0}, "seconds": 2.0, "cpu_seconds": 1.0}
    order = torch.get_rng_state()
    losses = [np.float64(0.1), torch.tensor(0.1)]
    place = checkpoint.Position(3, 2, 16, order, losses, history=history)
    checkpoint.save_checkpoint(path, state, ARGS, place)
    found = checkpoint.restore(path, make_state(), ARGS)
    assert (found.epoch, found.done, found.batch_size, found.history) == (3, 2, 16, history)
    assert torch.equal(found.order, order)
    assert found.losses == [0.1, torch.tensor(0.1).item()]


def test_a_checkpoint_of_the_first_format_goes_on_with_its_epoch(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save_checkpoint(path, make_state(), ARGS, checkpoint.Position(4))
    record = torch.load(path, weights_only=True)
    del record["inside"]
    torch.save({**record, "format": 1}, path)
    found = checkpoint.restore(path, make_state(), ARGS)
    assert (found.epoch, found.inside) == (4, False)
    torch.save({**record, "format": 3}, path)
    with pytest.raises(CheckpointError, match="is no checkpoint of this version"):
        checkpoint.load_checkpoint(path)
