"""Released checkpoints of SymDiff, the door: see :mod:`symdiff_plugin.training.released`.

from symdiff_plugin.compat import load_release
load_release(build_dynamics("symdiff", 6, compat="release"), torch.load(path, weights_only=True))
"""

from symdiff_plugin.training.released import (
    ArgumentsError,
    from_release,
    is_release,
    load_release,
    read_configuration,
    run_arguments,
    whole_model,
)

__all__ = [
    "ArgumentsError",
    "from_release",
    "is_release",
    "load_release",
    "read_configuration",
    "run_arguments",
    "whole_model",
]
