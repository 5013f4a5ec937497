"""Progress changes neither what is gone through nor the random numbers."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.utils.data import DataLoader

from symdiff_plugin import progress as module
from symdiff_plugin.progress import progress


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
