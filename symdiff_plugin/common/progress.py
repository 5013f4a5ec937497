"""Progress with rate and time left: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 30.0
_BAR = "{l_bar}{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, %s]"
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
    if total is None:
        total = len(iterable)  # type: ignore[arg-type]
    with counting(description, total) as advance:
        for item in iterable:
            yield item
            advance(1)


def sample_batches(n_samples: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Yield, for every batch of ``n_samples``, how many came before it and how many it has; the last may be smaller."""
    for before in progress(range(0, n_samples, batch_size), f"Sampling {n_samples} molecules"):
        yield before, min(batch_size, n_samples - before)


@contextmanager
def counting(description: str, total: int, unit: str | None = None, done: int = 0) -> Iterator[Callable[[float], None]]:
    """Show progress that is told rather than gone through; see :func:`progress` for where and when.

    Args:
        description: what is being done, in a word or two.
        total: how much there is to do.
        unit: of ``total``, in the plural; the rate is then always in units a second.
        done: how much of it was done before.

    Yields:
        A function that takes how much more is done: any part of a unit, or less than nothing to take it back.
    """
    global _depth
    shown = {
        "total": total,
        "initial": done,
        "unit": f" {unit}" if unit else "it",
        "bar_format": _BAR % ("{rate_noinv_fmt}" if unit else "{rate_fmt}"),
    }
    _depth += 1
    try:
        if sys.stderr.isatty():
            with tqdm(desc=description, dynamic_ncols=True, leave=_depth == 1, **shown) as bar:
                yield lambda more: bar.update(min(more, total - bar.n))  # parts may add up to a little more
        elif _depth == 1:
            yield _lines(description, total, shown)
        else:
            yield lambda more: None
    finally:
        _depth -= 1


def bar(description: str, total: int | None, unit: str, **options: Any) -> tqdm:
    """A tqdm bar on stderr for reading and writing, where the bytes or items are told as they come.

    Args:
        description: what is being done, in a word or two.
        total: how much there is to do; None if nobody knows.
        unit: of ``total``.
        options: tqdm's own, such as ``unit_scale``.
    """
    interval = 0.3 if sys.stderr.isatty() else 10.0  # sparse where stderr is a log file
    return tqdm(desc=description, total=total, unit=unit, mininterval=interval, dynamic_ncols=True, **options)


def _lines(description: str, total: int, shown: dict[str, Any]) -> Callable[[float], None]:
    start = last = time.monotonic()
    done = float(shown["initial"])

    def advance(more: float) -> None:
        nonlocal last, done
        done = min(done + more, total)
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            line = tqdm.format_meter(done, elapsed=now - start, ncols=79, prefix=description, **shown)
            print(line, file=sys.stderr)

    return advance
