"""How the learning rate rises at the beginning of a training and falls at its end.

Between both it is constant: warm-up, stable, decay (Hu et al. 2024). A decay can begin at any checkpoint: going on from
it with an ``--n_epochs`` that leaves it the last part. A decay over all of it in the shape ``cosine`` is Loshchilov and
Hutter's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

# What is left of the rate where this much of the decay, from 1 to 0, is left.
SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda left: left,
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
    "sqrt": lambda left: 1 - math.sqrt(1 - left),  # Hägele et al. (2024)
}


def factor(step: int, steps: int, warmup_steps: int = 0, decay: float = 0.0, shape: str = "linear") -> float:
    """What the learning rate of a step is multiplied by, above 0.

    Args:
        step: the step's number, from 0.
        steps: of the whole training.
        warmup_steps: the first ones, in which the rate rises linearly.
        decay: the last part of ``steps``, from 0 to 1, in which it falls.
        shape: how, one of :data:`SHAPES`.
    """
    rise = min(1.0, (step + 1) / (warmup_steps + 1))
    left = min(1.0, (steps - step) / (decay * steps + 1)) if decay else 1.0
    return rise * SHAPES[shape](left)
