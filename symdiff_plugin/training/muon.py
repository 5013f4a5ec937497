"""Muon (Jordan et al. 2024) for the matrices of a Diffusion Transformer's blocks, AdamW for everything else.

Muon's step is the gradient's momentum made orthogonal, so that no direction of a matrix is left behind. It is torch's
own, its rate adjusted to the size of AdamW's steps (Liu et al. 2025).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def is_for_muon(name: str, parameter: nn.Parameter) -> bool:
    """Whether ``name`` is a matrix of attention or of an MLP in a block of epsilon_theta.

    The adaLN's matrices begin at zero, and f_theta's rate is a matter of its own: both stay with AdamW.
    """
    parts = name.split(".")
    return parameter.dim() == 2 and "blocks" in parts and not {"f_theta", "adaLN_modulation"} & {*parts}


class MuonAndAdamW(torch.optim.Optimizer):
    """Two optimisers that step together, and are kept and restored as one.

    Args:
        adamw: of the parameters that are not Muon's.
        matrices: Muon's.
        lr: Muon's rate.
    """

    def __init__(self, adamw: torch.optim.AdamW, matrices: list[nn.Parameter], lr: float) -> None:
        group = {"params": matrices, "lr": lr, "initial_lr": lr}
        muon = torch.optim.Muon([group], weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        self._adamw, self._muon = adamw, muon
        super().__init__([*adamw.param_groups, *muon.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Have both work on the groups and the state of this one."""
        count = len(self._adamw.param_groups)
        self._adamw.param_groups, self._muon.param_groups = self.param_groups[:count], self.param_groups[count:]
        self._adamw.state = self._muon.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimiser's."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both; ``closure`` is not used."""
        self._adamw.step()
        self._muon.step()
