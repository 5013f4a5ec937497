"""Which process: ``--probabilistic_model`` and the flags of each. Nothing here needs torch."""

from __future__ import annotations

from typing import Any

from symdiff_plugin.common.kinds import Kind, choice, optional, real

DIFFUSION, SCORE, FLOW = "diffusion", "score_matching", "flow_matching"
PROCESSES = (DIFFUSION, SCORE, FLOW)
# The flow draws R anew in each step, so that what it makes are mixtures of Dirac measures: it has no density.
WITH_LIKELIHOOD = (DIFFUSION, SCORE)

NO_LIKELIHOOD = "flow matching draws R in every step and has no likelihood"

FLOW_SIGMA = 1e-4
# Of one process each: kind, process, default and help.
KINDS: dict[str, Kind] = {
    "flow_sigma": optional(real("(0, 0.1]")),
    "flow_alignment": optional(choice("none", "rotation", "permutation", "both")),
    "score_weighting": optional(choice("sigma2", "g2")),
}
DEFAULTS: dict[str, tuple[str, float | str]] = {
    "flow_sigma": (FLOW, FLOW_SIGMA),
    "flow_alignment": (FLOW, "none"),
    "score_weighting": (SCORE, "sigma2"),
}
HELP = {
    "flow_sigma": f"flow_matching: deviation of the noise left at the end of the path ({FLOW_SIGMA:g})",
    "flow_alignment": "flow_matching: turn the noise of a molecule in training, or reorder its atoms, or both, so that "
    "it lies near the molecule and the paths are short (none)",
    "score_weighting": "score_matching: lambda(t) of the loss, sigma^2, or g^2, which is the likelihood's (sigma2)",
}
# EDM's flags of the diffusion, by the processes that they do something for.
OF_DIFFUSION = {
    "diffusion_steps": WITH_LIKELIHOOD,
    "diffusion_noise_schedule": WITH_LIKELIHOOD,
    "diffusion_noise_precision": WITH_LIKELIHOOD,
    "diffusion_loss_type": (DIFFUSION,),
}


def has_likelihood(args: Any) -> bool:
    """Whether a run's arguments, old ones included, are of a process with a likelihood."""
    return getattr(args, "probabilistic_model", DIFFUSION) in WITH_LIKELIHOOD


def processes_of(flag: str) -> tuple[str, ...]:
    """The processes that the flag does something for."""
    return (DEFAULTS[flag][0],) if flag in DEFAULTS else OF_DIFFUSION.get(flag, PROCESSES)
