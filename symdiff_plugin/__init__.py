"""SymDiff (Zhang et al. 2024) as a plugin of EDM (Hoogeboom et al. 2022).

    from symdiff_plugin import build_dynamics, PRESETS           # the paper's models
    from symdiff_plugin import Symmetrised, check_equivariance   # any network of one's own

The names are loaded on first use, so that the set-up commands, which run before
anything is installed, need no torch: ``python -m symdiff_plugin.edm`` is one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symdiff_plugin.model.dynamics import DiTDynamics, SymDiffDynamics, build_dynamics
    from symdiff_plugin.model.equivariance import check_equivariance
    from symdiff_plugin.model.symmetrised import Symmetrised
    from symdiff_plugin.presets import PRESETS

__version__ = "0.1.0"
__all__ = ["PRESETS", "DiTDynamics", "SymDiffDynamics", "Symmetrised", "build_dynamics", "check_equivariance"]

_HOME = {
    "PRESETS": "symdiff_plugin.presets",
    "build_dynamics": "symdiff_plugin.model.dynamics",
    "DiTDynamics": "symdiff_plugin.model.dynamics",
    "SymDiffDynamics": "symdiff_plugin.model.dynamics",
    "Symmetrised": "symdiff_plugin.model.symmetrised",
    "check_equivariance": "symdiff_plugin.model.equivariance",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
