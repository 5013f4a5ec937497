"""Where a sampler stops: levels of the schedule from pure noise (time 1) to z_0 (time 0), by name in :data:`GRIDS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from symdiff_plugin.process.schedule import Level

_RHO = 7.0  # Karras et al. (2022), eq. 5
_FIRST = -7.0  # where a grid of log(alpha / sigma) begins that has no beginning, a flow's; EDM's begins at -5.8


class Schedule(Protocol):
    """What a grid asks of a schedule; see :class:`symdiff_plugin.process.schedule.NoiseSchedule`."""

    def level(self, time: float) -> Level: ...

    def level_at(self, log_ratio: float) -> Level: ...


def uniform_in_logsnr(schedule: Schedule, intervals: int) -> list[Level]:
    """log(alpha / sigma) in equal steps (Lu et al. 2022)."""
    first, last = max(schedule.level(1.0).log_ratio, _FIRST), schedule.level(0.0).log_ratio
    return _between(schedule, [first + (last - first) * i / intervals for i in range(1, intervals)])


def uniform_in_time(schedule: Schedule, intervals: int) -> list[Level]:
    """t in equal steps: of T intervals EDM's own."""
    return [schedule.level(1 - i / intervals) for i in range(intervals + 1)]


def karras(schedule: Schedule, intervals: int) -> list[Level]:
    """(sigma / alpha)^(1 / 7) in equal steps (Karras et al. 2022, eq. 5)."""
    first, last = (math.exp(-max(schedule.level(time).log_ratio, _FIRST) / _RHO) for time in (1.0, 0.0))
    return _between(
        schedule, [-_RHO * math.log(first + (last - first) * i / intervals) for i in range(1, intervals)]
    )  # fmt: skip


def _between(schedule: Schedule, log_ratios: list[float]) -> list[Level]:
    """Both ends, exactly, and what is between."""
    return [schedule.level(1.0), *map(schedule.level_at, log_ratios), schedule.level(0.0)]


GRIDS: dict[str, Callable[[Schedule, int], list[Level]]] = {
    "logsnr": uniform_in_logsnr,
    "time": uniform_in_time,
    "karras": karras,
}
