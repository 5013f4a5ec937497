"""What all evaluations here have in common."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from symdiff_plugin.evaluate import evaluation


@pytest.fixture(autouse=True, scope="module")
def small_pictures() -> Iterator[None]:
    """A tenth as wide: they take half of a short evaluation, and tests/molecules/test_picture.py looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "write_picture", partial(evaluation.write_picture, cell=32))
        yield
