"""What several tests of the flags take."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def data(qm9_slice: Path) -> tuple[str, str]:
    return "--datadir", str(qm9_slice)
