"""State dicts compared by name and shape, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first tensor that is missing, unknown or of another shape, in words; None if all fit."""
    wanted, given = ({name: tuple(value.shape) for name, value in state.items()} for state in (expected, found))
    odd = next((name for name in (*wanted, *given) if wanted.get(name) != given.get(name)), None)
    if odd is None:
        return None
    return f"{odd} should be {wanted.get(odd, 'absent')} and is {given.get(odd, 'absent')}"
