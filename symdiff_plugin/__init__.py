"""SymDiff (Zhang et al. 2024) as a plugin of EDM (Hoogeboom et al. 2022).

    from symdiff_plugin import build_dynamics, PRESETS

The names are loaded on first use, so that the set-up commands, which run before
anything is installed, need no torch: ``python -m symdiff_plugin.edm`` is one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symdiff_plugin.model.dynamics import DiTDynamics, SymDiffDynamics, build_dynamics
    from symdiff_plugin.presets import PRESETS

__version__ = "0.1.0"
__all__ = ["PRESETS", "DiTDynamics", "SymDiffDynamics", "build_dynamics"]

_HOME = {
    "PRESETS": "symdiff_plugin.presets",
    "build_dynamics": "symdiff_plugin.model.dynamics",
    "DiTDynamics": "symdiff_plugin.model.dynamics",
    "SymDiffDynamics": "symdiff_plugin.model.dynamics",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
