"""Running EDM's scripts as a user does: in another process, from a folder of one's own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from mpl_toolkits.mplot3d import Axes3D

# A SymDiff that trains in seconds; what is not here is the preset's.
TINY = (
    "--hidden_size", "32", "--depth", "1", "--num_heads", "2", "--xh_hidden_size", "16", "--K", "8",
    "--enc_hidden_size", "16", "--enc_depth", "1", "--enc_num_heads", "2", "--dec_hidden_features", "8",
)  # fmt: skip
SHORT = (
    "--diffusion_steps", "8", "--batch_size", "64", "--n_epochs", "2", "--test_epochs", "1",
    "--n_stability_samples", "7", "--n_report_steps", "1", "--no_wandb",
)  # fmt: skip

# Most of a short run's time is its imports. Here a server has those of other people's packages behind it, and each
# script is a fork of that server: a process of its own, where EDM's modules and ours are imported anew.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["torch", "torch._dynamo", "scipy.stats", "mpl_toolkits.mplot3d", "matplotlib.pyplot", "imageio", "rdkit.Chem"]
)
_TESTS = Path(__file__).parents[1]


def _fork_of_server(words: list[str], folder: Path, environment: Mapping[str, str], printed: list[str]) -> None:
    """Be ``python words``, started in ``folder``, with stdout and stderr going to the files ``printed``."""
    for descriptor, path in enumerate(printed, 1):
        os.dup2(os.open(path, os.O_WRONLY), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [str(Path(words[0]).parent), *(path for path in sys.path if not Path(path).is_relative_to(_TESTS))]
    sys.argv[:] = words
    multiprocessing.set_start_method(None, force=True)  # the default again, for the loaders' workers
    np.random.seed(None)  # a fork has its server's
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    surface = Axes3D.plot_surface  # EDM draws an atom as 2,500 facets, in seconds; here as nine
    Axes3D.plot_surface = lambda *given, **style: surface(*given, **{**style, "rstride": 33, "cstride": 33})
    runpy.run_path(words[0], run_name="__main__")


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
        """The finished process of one script; with ``python_path``, of a Python of its own that finds modules there."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        words = [str(self.edm / script), *map(str, flags)]
        if python_path is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(python_path), environment.get("PYTHONPATH", "")])
            return subprocess.run(
                [sys.executable, *words],
                cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.NamedTemporaryFile("r", encoding="utf-8")) for _ in range(2)]
            arguments = (words, self.folder, environment, [file.name for file in files])
            process = _SERVER.Process(target=_fork_of_server, args=arguments)
            process.start()
            process.join(300)
            if process.exitcode is None:
                process.kill()
                raise subprocess.TimeoutExpired(words, 300)
            return subprocess.CompletedProcess(words, process.exitcode, *(file.read() for file in files))

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
