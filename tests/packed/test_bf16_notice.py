"""What --precision bf16 says on a CPU that is the slower for it. No assertion is on real times."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterator

import pytest
import torch

from symdiff_plugin import hooks, sample
from symdiff_plugin.packed import precision


@pytest.fixture(autouse=True)
def ratio(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What the measurement will find; each measurement takes one away."""
    found: list[float] = []
    monkeypatch.setattr(precision, "bfloat16_time", lambda width: found.pop())
    precision.tell_if_slower.cache_clear()
    yield found
    precision.tell_if_slower.cache_clear()


@pytest.mark.parametrize(("found", "said"), [(1.53, True), (1.1, False), (1.05, False), (0.4, False)])
def test_one_line_with_the_ratio_where_it_is_slower(
    ratio: list[float], found: float, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    ratio.append(found)
    for _ in range(2):  # once a process
        precision.tell_if_slower("bf16", "cpu", 64)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == said
    assert not said or "1.5 times" in lines[0]


@pytest.mark.parametrize(("name", "device"), [("fp32", "cpu"), ("bf16", "cuda")])
def test_nothing_is_measured_in_float32_and_on_a_gpu(name: str, device: str) -> None:
    precision.tell_if_slower(name, device, 64)  # a measurement would find nothing and raise


def test_runs_and_their_evaluation_tell(ratio: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """EDM's get_model, by which every script builds a run's model, asks here for it."""
    ratio.append(2.0)
    hooks.build_dynamics(Namespace(model="symdiff_tiny", context_node_nf=0, precision="bf16", cuda=False), 6)
    assert "2.0 times as long" in capsys.readouterr().err


def test_sampling_tells(
    ratio: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    ratio.append(3.0)
    monkeypatch.setattr(sample, "sample_pretrained", interrupt)
    sample.main(["--pretrained", "qm9-mini", "--precision", "bf16", "--device", "cpu", "--batch_size", "1"])
    assert "3.0 times" in capsys.readouterr().err


class Machine:
    """A clock that a product in float32 moves on by 10 ms and one in bfloat16 by ``ratio`` times that."""

    def __init__(self, ratio: float) -> None:
        self.now, self.ratio, self.products = 0.0, ratio, []

    def perf_counter(self) -> float:
        return self.now

    def linear(self, rows: torch.Tensor, columns: torch.Tensor) -> None:
        first = rows.dtype not in self.products
        self.products.append(rows.dtype)
        self.now += 0.01 * (self.ratio if rows.dtype == torch.bfloat16 else 1) + first  # the first takes long
        assert rows.shape == (1024, 384)
        assert columns.shape == (1536, 384)


@pytest.mark.parametrize("ratio_there", [0.27, 1.4, 90.0])
def test_the_fastest_of_each_counts(ratio_there: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the measurement itself
    machine = Machine(ratio_there)
    monkeypatch.setattr(precision.time, "perf_counter", machine.perf_counter)
    monkeypatch.setattr(torch.nn.functional, "linear", machine.linear)
    state = torch.get_rng_state()
    assert precision.bfloat16_time(384) == pytest.approx(ratio_there)
    assert machine.now < 2 + 0.01 * (1 + ratio_there) + 1  # the first ones, and the time given
    rounds = math.ceil(0.3 / (0.01 * (1 + ratio_there)))  # in the time given, after the first one
    assert machine.products == [torch.float32, torch.bfloat16] * (1 + rounds)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_measurement_itself_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    state = torch.get_rng_state()
    assert precision.bfloat16_time(16, tokens=4, seconds=0) > 0
    assert torch.equal(torch.get_rng_state(), state)
