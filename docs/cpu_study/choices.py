"""One choice of the authors' release at a time, inside the paper's SymDiff: composition, Psi's mean, or eta.

    python docs/cpu_study/choices.py CHOICE e3_diffusion_for_molecules/main_qm9.py --model symdiff_tiny ...
    python docs/cpu_study/choices.py CHOICE -m symdiff_plugin.evaluate outputs/NAME ...

runs the script or module with that choice in force. A run's config.json does not show it, so name the run after it,
and evaluate it under the same choice. (``--time_scale`` and ``--symdiff_compat release``, all of them, are flags.)
"""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace

from torch import Tensor

from symdiff_plugin.model import dynamics

_Psi = dynamics.GaussianPairEmbedding


def _psi_of_the_release(num_kernels: int, features: int, release: bool = False) -> _Psi:
    return _Psi(num_kernels, features, release=True)


_draw = dynamics.SymDiffDynamics.draw


def _draw_of_the_release(self: dynamics.SymDiffDynamics, xh: Tensor, node_mask: Tensor) -> dict[str, Tensor]:
    """From the same random numbers as the paper's, so that the training losses are paired."""
    paper = self.architecture
    self.architecture = replace(paper, compat="release")
    try:
        return _draw(self, xh, node_mask)
    finally:
        self.architecture = paper


# What is replaced, and by what.
RELEASE = {
    "composition": (dynamics, "compose", lambda R0, f, release=False: f @ R0.mT),  # R = f R0^T
    "psi": (dynamics, "GaussianPairEmbedding", _psi_of_the_release),  # its bias for padded positions too
    "eta": (dynamics.SymDiffDynamics, "draw", _draw_of_the_release),  # eta is not centred
}


def main(words: list[str]) -> None:
    """Put the choice in force, then be the script."""
    if len(words) < 2 or words[0] not in RELEASE:
        sys.exit(f"usage: choices.py {'|'.join(RELEASE)} SCRIPT.py|-m MODULE [argument...]")
    choice, *rest = words
    where, name, replacement = RELEASE[choice]
    assert hasattr(where, name)
    setattr(where, name, replacement)
    print(f"The release's {choice} is in force")
    if rest[0] == "-m":
        sys.argv = rest[1:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = rest
        sys.path.insert(0, rest[0].rpartition("/")[0])
        runpy.run_path(rest[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
