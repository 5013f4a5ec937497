"""Progress changes neither what is gone through nor the random numbers."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.utils.data import DataLoader

from symdiff_plugin.common import progress as module
from symdiff_plugin.common.progress import counting, progress, sample_batches


@pytest.mark.parametrize("terminal", [False, True])
def test_same_items_same_order_same_random_numbers(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    loader = DataLoader(torch.arange(50), batch_size=7, shuffle=True)

    def epoch(wrap: bool) -> tuple[list, torch.Tensor]:
        torch.manual_seed(0)
        batches = [(i, batch.tolist()) for i, batch in enumerate(progress(loader, "Epoch 0") if wrap else loader)]
        return batches, torch.get_rng_state()

    plain, wrapped = epoch(False), epoch(True)
    assert plain[0] == wrapped[0]
    assert torch.equal(plain[1], wrapped[1])


def test_a_log_file_gets_few_lines_of_the_outermost_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10_000, 10))  # ten seconds go by whenever the clock is read
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    for _ in progress(range(10), "outer"):
        for _ in progress(range(100), "inner"):
            pass
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # after 30, 60 and 90 seconds
    assert all(line.startswith("outer:") and "/10" in line for line in lines)
    assert "\r" not in "".join(lines)


def test_parts_of_a_unit_are_counted_and_can_be_taken_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with counting("Sampling", 10, "molecules") as advance:
        for part in (0.5, 0.5, 2, 1, -3.5, 4.5):
            advance(part)
    first, second = capsys.readouterr().err.splitlines()  # after 30 and 60 seconds
    assert "| 3/10 [00:30<01:10,  0.10 molecules/s]" in first
    assert "| 5/10 [01:00<01:00,  0.08 molecules/s]" in second


def test_a_terminal_shows_the_unit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with counting("Sampling", 2, "molecules") as advance:
        for _ in range(20):
            advance(0.1)
    last = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert "100%" in last
    assert "| 2/2 [" in last
    assert last.endswith(" molecules/s]")


def test_breaking_off_leaves_the_next_loop_outermost(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress(range(5), "broken off"):
        break
    assert module._depth == 0


def test_an_error_passes_through() -> None:
    def items() -> object:
        yield 1
        raise RuntimeError("from the loader")

    with pytest.raises(RuntimeError, match="from the loader"):
        list(progress(items(), "Epoch 0", total=2))
    assert module._depth == 0


def test_the_last_batch_of_samples_may_be_smaller() -> None:
    assert list(sample_batches(250, 100)) == [(0, 100), (100, 100), (200, 50)]
    assert list(sample_batches(3, 3)) == [(0, 3)]
