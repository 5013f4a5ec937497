"""Progress with rate and time left: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 30.0
_depth = 0


def progress(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items of ``iterable`` in their order, showing progress on stderr.

    On a terminal this is a tqdm bar; nested ones vanish when done. Elsewhere only the outermost one speaks,
    at most every ``SECONDS_BETWEEN_LINES`` seconds. It draws no random numbers.

    Args:
        iterable: what to go through; ``len(iterable)`` is taken once if ``total`` is not given.
        description: what is being done, in a word or two.
        total: number of items.
    """
    global _depth
    if total is None:
        total = len(iterable)  # type: ignore[arg-type]
    _depth += 1
    try:
        if sys.stderr.isatty():
            yield from tqdm(iterable, desc=description, total=total, dynamic_ncols=True, leave=_depth == 1)
        elif _depth == 1:
            yield from _lines(iterable, description, total)
        else:
            yield from iterable
    finally:
        _depth -= 1


def _lines(iterable: Iterable[T], description: str, total: int) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(iterable):
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            print(tqdm.format_meter(done, total, now - start, ncols=79, prefix=description), file=sys.stderr)
        yield item
