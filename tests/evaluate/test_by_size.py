"""Molecules sampled in batches of about one size, by a sampler that only says what it was asked for."""

from __future__ import annotations

import pytest
import torch

from symdiff_plugin.common.errors import EvaluationError
from symdiff_plugin.evaluate.by_size import in_batches

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZES = torch.tensor([4, 9, 2, 9, 7, 4, 1, 9])


class Sampler:
    """Gives each molecule's place and a random number; too many molecules at once are too many."""

    def __init__(self, most: int = 100) -> None:
        self.most, self.batches = most, []

    def __call__(self, batch: torch.Tensor) -> list[tuple[int, float]] | None:
        numbers = torch.rand(len(batch)).tolist()  # drawn before memory turns out to be short
        if len(batch) > self.most:
            return None
        self.batches.append(batch.tolist())
        return list(zip(batch.tolist(), numbers, strict=True))


@pytest.mark.parametrize(("batch_size", "counts"), [(3, [3, 3, 2]), (8, [8]), (100, [8]), (1, [1] * 8)])
def test_the_largest_come_first_and_all_are_put_back(batch_size, counts):
    sampler = Sampler()
    molecules, sizes = in_batches(SIZES, batch_size, CPU, sampler)
    assert sizes == counts == [len(batch) for batch in sampler.batches]
    asked = [place for batch in sampler.batches for place in batch]
    assert asked == [1, 3, 7, 4, 0, 5, 2, 6]  # those of one size in the order given
    assert [place for place, _ in molecules] == list(range(8))


def test_out_of_memory_halves_the_batch_for_good_with_the_same_random_numbers(capsys, monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    torch.manual_seed(0)
    wanted, _ = in_batches(SIZES, 2, CPU, Sampler())
    torch.manual_seed(0)
    found, counts = in_batches(SIZES, 5, CPU, Sampler(most=2))
    assert counts == [2, 2, 2, 2]
    assert found == wanted
    assert capsys.readouterr().err == "Out of memory: sampling 2 molecules at once, not 5\n"
    assert len(emptied) == 1


def test_a_molecule_that_does_not_fit_is_named(capsys):
    with pytest.raises(EvaluationError, match=r"^a molecule of 9 atoms does not fit into the memory of the GPU"):
        in_batches(SIZES, 2, CPU, Sampler(most=0))
    assert capsys.readouterr().err == "Out of memory: sampling 1 molecules at once, not 2\n"


def test_the_generator_of_a_gpu_is_put_back_too(monkeypatch):
    """With one of our own in its place."""
    gpu = {"state": torch.tensor([1])}
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: gpu[{CUDA: "state"}[device]].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: gpu.update({{CUDA: "state"}[device]: state}))

    def sampler(batch: torch.Tensor) -> list[int] | None:
        before = int(gpu["state"])
        gpu["state"] += 1
        return None if len(batch) > 4 else [before] * len(batch)

    assert set(in_batches(SIZES, 8, CUDA, sampler)[0]) == {1, 2}
    gpu["state"] = torch.tensor([1])
    assert set(in_batches(SIZES, 8, CPU, sampler)[0]) == {2, 3}  # a CPU's run does not touch it


def test_a_molecule_that_is_missing_is_noticed():
    with pytest.raises(ValueError, match="zip"):
        in_batches(SIZES, 4, CPU, lambda batch: [0] * (len(batch) - 1))
