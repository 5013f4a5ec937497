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
OTHER_GEOM_COSTS = {"geoldm": Cost("GeoLDM", 5.5, None, None, None)}  # Table 7 prints "GeoLM"
OTHER_QM9_COSTS = {  # methods of Table 2 that the plugin does not have
    "geoldm": Cost("GeoLDM", 11.4, 210.93, 0.26, 27),
    "mudiff": Cost("MuDiff", 9.7, 230.87, 0.89, 36),
    "end": Cost("END", 9.4, None, None, None),
}

# Sample quality on QM9, 10,000 samples and 3 evaluation runs: "mean std" with the paper's digits, "" where it is blank.
_SYMDIFF = ("SymDiff", "-129.35 1.07", "98.74 0.03", "87.49 0.23", "95.75 0.10", "97.89 0.26")
_DIT = ("DiT", "-127.78 2.49", "98.23 0.04", "81.03 0.25", "94.71 0.31", "97.98 0.12")
TABLE_1 = {
    "geoldm": ("GeoLDM", "", "98.90 0.10", "89.40 0.50", "93.80 0.40", "92.70 0.50"),
    "mudiff": ("MUDiff", "-135.50 2.10", "98.80 0.20", "89.90 1.10", "95.30 1.50", "99.10 0.50"),
    "end": ("END", "", "98.90 0.00", "89.10 0.10", "94.80 0.10", "92.60 0.20"),
    "edm": ("EDM", "-110.70 1.50", "98.70 0.10", "82.00 0.40", "91.90 0.50", "90.70 0.60"),
    "symdiff_star": ("SymDiff*", "-133.79 1.33", "98.92 0.03", "89.65 0.10", "96.36 0.27", "97.66 0.22"),
    "symdiff": _SYMDIFF,
    "symdiff_h": ("SymDiff-H", "-126.53 0.90", "98.57 0.07", "85.51 0.18", "95.22 0.18", "97.98 0.09"),
    "dit_aug": ("DiT-Aug", "-126.81 1.69", "98.64 0.03", "85.85 0.24", "95.10 0.17", "97.98 0.08"),
    "dit": _DIT,
    "data": ("Data", "", "99.00", "95.20", "97.8", "100"),
}
# Their last figure is, as in their own papers, of samples valid and unique; that of the others is of the valid.
UNIQUENESS_TIMES_VALIDITY = frozenset({"geoldm", "end", "edm"})
TABLE_3 = {  # NLL, molecule stability; what they cost is in QM9_COSTS
    "edm_plus_plus": ("EDM++", "-119.12 1.41", "85.68 0.83"),
    "edm_plus": ("EDM+", "-110.97 1.42", "84.63 0.16"),
    "edm": ("EDM", "-110.70 1.50", "82.00 0.40"),
    "symdiff": ("SymDiff", "-129.35 1.07", "87.49 0.23"),
    "symdiff_minus": ("SymDiff-", "-125.40 0.63", "83.51 0.24"),
    "symdiff_minus_minus": ("SymDiff--", "-110.68 2.55", "71.25 0.50"),
}
# GEOM-Drugs: NLL, atom stability, validity; GeoLDM and EDM from one evaluation run.
TABLE_4 = {
    "geoldm": ("GeoLDM", "", "84.4", "99.3"),
    "end": ("END", "", "87.8 0.99", "92.9 0.3"),
    "edm": ("EDM", "-137.1", "81.3", ""),
    "symdiff": ("SymDiff", "-301.21 0.53", "86.16 0.05", "99.27 0.1"),
    "data": ("Data", "", "86.50", "99.9"),
}
TABLE_5 = {  # epsilon_theta: parameters in millions, n_size, n_layers, n_heads
    "symdiff_star": ("SymDiff*", "115.6", "768", "12", "12"),
    "symdiff": ("SymDiff", "29", "384", "12", "6"),
    "symdiff_minus": ("SymDiff-", "21.3", "360", "10", "6"),
    "symdiff_minus_minus": ("SymDiff--", "11.3", "294", "8", "6"),
}
TABLE_6 = {  # EDM: parameters in millions, n_f, n_l
    "edm_plus_plus": ("EDM++", "12.4", "332", "12"),
    "edm_plus": ("EDM+", "9.5", "256", "16"),
    "edm": ("EDM", "5.3", "256", "9"),
}
TABLE_8 = {
    "symdiff": _SYMDIFF,
    "dit_ft": ("DiT-FT", "-111.66 1.22", "98.43 0.03", "83.27 0.39", "94.19 0.16", "98.17 0.26"),
    "dit_ft_freeze": ("DiT-FT-Freeze", "-43.29 3.73", "95.68 0.02", "55.02 0.38", "90.48 0.24", "99.06 0.13"),
    "dit": _DIT,
}
