"""Running EDM's scripts as a user does: in another process, from a folder of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

# A SymDiff that trains in seconds; what is not here is the preset's.
TINY = (
    "--hidden_size", "32", "--depth", "1", "--num_heads", "2", "--xh_hidden_size", "16", "--K", "8",
    "--enc_hidden_size", "16", "--enc_depth", "1", "--enc_num_heads", "2", "--dec_hidden_features", "8",
)  # fmt: skip
SHORT = (
    "--diffusion_steps", "8", "--batch_size", "64", "--n_epochs", "2", "--test_epochs", "1",
    "--n_stability_samples", "7", "--n_report_steps", "1", "--no_wandb",
)  # fmt: skip


class Workplace:
    """A folder to run EDM's scripts in.

    Args:
        folder: the working directory; runs end up in its ``outputs/``.
        edm: the checkout whose scripts are run.
    """

    def __init__(self, folder: Path, edm: Path) -> None:
        self.folder = folder
        self.edm = edm

    def start(self, script: str, *flags: object, python_path: Path | None = None) -> subprocess.CompletedProcess[str]:
        """The finished process of one script."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        if python_path is not None:
            environment["PYTHONPATH"] = str(python_path)
        return subprocess.run(
            [sys.executable, self.edm / script, *map(str, flags)],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def run(self, script: str, *flags: object, python_path: Path | None = None) -> str:
        """What a script prints that must end well."""
        done = self.start(script, *flags, python_path=python_path)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def output(self, name: str) -> Path:
        return self.folder / "outputs" / name


def equal(a: object, b: object) -> bool:
    """Whether two checkpoints are the same to the last bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b
