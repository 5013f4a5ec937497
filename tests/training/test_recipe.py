"""A run by the fast recipe, through EDM's own loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs import SHORT, TINY, Workplace

from symdiff_plugin.training.history import read_rows
from symdiff_plugin.training.learning_rate import factor

pytestmark = [pytest.mark.edm, pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs PyTorch 2.9")]
STEPS = 4  # an epoch: 240 molecules, 64 at once


def test_its_rates_rise_and_fall_over_the_whole_training(workplace: Workplace, qm9_slice: Path) -> None:
    flags = ("--model", "symdiff_tiny", *TINY, *SHORT, "--datadir", str(qm9_slice), "--exp_name", "fast")
    fast = ("--recipe", "fast", "--warmup_steps", "2", "--decay", "0.5", "--seed", "0", "--test_epochs", "9")
    workplace.run("main_qm9.py", *flags, *fast)
    folder = workplace.folder / "outputs/fast"

    def rates() -> list[float]:
        return [row["lr"] for row in read_rows(folder / "history.jsonl")]

    def wanted(epoch: int, epochs: int) -> float:
        return 1e-3 * factor(epoch * STEPS + STEPS - 1, epochs * STEPS, 2, 0.5, "linear")

    assert rates() == pytest.approx([wanted(0, 2), wanted(1, 2)])
    assert rates()[1] < 0.3 * rates()[0]
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)["optim"]
    assert any("momentum_buffer" in state for state in kept["state"].values())  # Muon's
    workplace.run("main_qm9.py", "--resume", "outputs/fast", "--n_epochs", "4", "--no_wandb")  # and rise again
    assert rates()[2:] == pytest.approx([wanted(2, 4), wanted(3, 4)])
    assert rates()[2] > 2 * rates()[1]
