"""What the paper reports (Zhang et al. 2024), to set beside what is measured here. Nothing in this file is ours.

Speed and memory: Tables 2, 3 and 7, on one NVIDIA H100 of 80 GB. Sampling time is seconds a sample of T = 1000 steps.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """One row: parameters in millions, seconds an epoch, seconds a sample, GPU memory in GB; None where it is blank."""

    label: str
    parameters: float | None
    epoch_seconds: float | None
    sample_seconds: float | None
    memory_gb: float | None


QM9_COSTS = {
    "edm": Cost("EDM", 5.4, 88.80, 0.27, 14),
    "edm_plus": Cost("EDM+", 9.5, 192.60, 0.46, 23),
    "edm_plus_plus": Cost("EDM++", 12.4, 160.60, 0.56, 23),
    "symdiff_star": Cost("SymDiff*", 117.8, 53.40, 0.21, 16),
    "symdiff": Cost("SymDiff", 31.2, 27.20, 0.09, 7),
    "symdiff_minus": Cost("SymDiff-", 23.5, 24.87, 0.08, 6),
    "symdiff_minus_minus": Cost("SymDiff--", 13.5, 20.60, 0.07, 5),
}
GEOM_COSTS = {
    "edm": Cost("EDM", 2.4, None, None, None),
    "symdiff": Cost("SymDiff", 31.2, 4336.82, 0.39, 63),
}
COSTS = {"qm9": QM9_COSTS, "geom": GEOM_COSTS}
