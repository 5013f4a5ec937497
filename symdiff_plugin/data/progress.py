"""One progress bar for reading and writing."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress(description: str, total: int | None, unit: str, **options: Any) -> tqdm:
    """A bar on stderr with rate and time left; sparse where stderr is a log file rather than a terminal."""
    interval = 0.3 if sys.stderr.isatty() else 10.0
    return tqdm(desc=description, total=total, unit=unit, mininterval=interval, dynamic_ncols=True, **options)
