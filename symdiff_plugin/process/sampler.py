"""Which sampler: its flags, the same for every command and run, and what they come to. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from symdiff_plugin.common.kinds import BOOLEAN, Kind, choice, optional, real, whole
from symdiff_plugin.process.level import Level
from symdiff_plugin.process.probabilistic_model import DIFFUSION, FLOW, SCORE
from symdiff_plugin.process.step_grids import GRIDS, Schedule
from symdiff_plugin.process.step_rules import FLOW_RULES, RULES, Rule

RULES_OF = {DIFFUSION: RULES, SCORE: RULES, FLOW: FLOW_RULES}
EDMS = "ancestral"  # EDM's own: the paper's numbers are of it
FAST = "sde-dpm++"  # as good in FAST_STEPS calls as EDM's in 1,000: docs/samplers.md
FAST_STEPS = 50
# Where no sampler is named. Euler's steps are the kernels of eq. 29.
USUAL = {DIFFUSION: EDMS, SCORE: FAST, FLOW: "euler"}

KINDS: dict[str, Kind] = {
    "sampler": choice(*dict.fromkeys([*RULES, *FLOW_RULES])),
    "sampling_steps": optional(whole(1, 1_000_000)),
    "step_grid": optional(choice(*GRIDS)),
    "stochasticity": optional(real("[0, 2]")),
    "corrector_steps": optional(whole(0, 1000)),
    "hold_frame": optional(BOOLEAN),
}
HELP = {
    "sampler": f"ancestral is EDM's own; of flow_matching: {', '.join(FLOW_RULES)}",
    "sampling_steps": "calls of the network from noise to z_0; reading the molecule off z_0 is one more, as in EDM "
    f"(ancestral: as many as diffusion steps, the others: {FAST_STEPS})",
    "step_grid": "what is in equal steps: the log-SNR, the time or Karras et al.'s power of sigma / alpha (logsnr; "
    "time for flow_matching and for as many ancestral steps as diffusion steps, which is EDM's own)",
    "stochasticity": "noise added on the way: 0 is an ODE, 1 the usual SDE; ddim's eta (ddim: 0, the SDEs: 1)",
    "corrector_steps": "steps of Langevin's dynamics after each step, a call each out of --sampling_steps (0)",
    "hold_frame": "True | False: draw what R is made of, R0 and eta, once a molecule, not at every call; the molecule "
    "is then the unsymmetrised network's, turned at the end (False)",
}


@dataclass(frozen=True)
class Sampler:
    """A sampler to the last detail; the fields are called like the flags, and so recorded."""

    sampler: str
    sampling_steps: int
    step_grid: str
    stochasticity: float
    corrector_steps: int = 0
    probabilistic_model: str = DIFFUSION
    hold_frame: bool = False

    @classmethod
    def of(cls, flags: Mapping[str, Any], diffusion_steps: int) -> Sampler:
        """What ``flags``, or a run's arguments, ask for; those that are missing or None are the sampler's usual ones.

        Args:
            flags: by their names; ``probabilistic_model`` is of the run, a diffusion if it is not there. So are
                ``model`` and ``frame``, which say whether there is an R to hold.
            diffusion_steps: T.

        Raises:
            ValueError: a flag has no such value, or not with this sampler; one line, the flag first.
        """
        given = {name: flags[name] for name in KINDS if flags.get(name) is not None}
        for name, value in given.items():
            if fault := KINDS[name].fault(value):
                raise ValueError(f"--{name} {fault}")
        process = flags.get("probabilistic_model", DIFFUSION)
        name = given.get("sampler", USUAL[process])
        rules = RULES_OF[process]
        if name not in rules:
            raise ValueError(f"--sampler of {process} is one of {', '.join(rules)}, not {name}")
        steps = int(given.get("sampling_steps", diffusion_steps if name == EDMS else FAST_STEPS))
        corrections = int(given.get("corrector_steps", 0))
        edms = name == EDMS and steps == diffusion_steps and corrections == 0
        rule = rules[name]
        chosen = cls(
            name, steps, given.get("step_grid", "time" if edms or process == FLOW else "logsnr"),
            float(given.get("stochasticity", rule.stochasticity)), corrections, process,
            given.get("hold_frame", False),
        )  # fmt: skip
        if not rule.least <= chosen.stochasticity <= rule.most:
            allowed = f"{rule.least:g}" if rule.least == rule.most else f"from {rule.least:g} to {rule.most:g}"
            raise ValueError(f"--stochasticity of --sampler {name} is {allowed}, not {chosen.stochasticity:g}")
        if chosen.hold_frame and "model" in flags and flags.get("frame", "none") == "none":
            raise ValueError(f"--hold_frame: --model {flags['model']} draws no R to hold; leave it out")
        if not chosen.intervals:
            raise ValueError(
                f"--sampling_steps must be at least {chosen._calls} with --sampler {name} and --corrector_steps "
                f"{corrections}: a step takes so many calls of the network"
            )
        return chosen

    @property
    def rule(self) -> Rule:
        return RULES_OF[self.probabilistic_model][self.sampler]

    @property
    def intervals(self) -> int:
        """Steps between levels: as many as ``sampling_steps`` calls of the network pay for."""
        return self.sampling_steps // self._calls

    @property
    def calls(self) -> int:
        """Calls of the network for a batch, that of decoding z_0 included, which a flow does without."""
        return self.intervals * self._calls + (self.probabilistic_model != FLOW)

    @property
    def _calls(self) -> int:
        return self.rule.calls + self.corrector_steps

    def levels(self, schedule: Schedule) -> list[Level]:
        """(intervals + 1) levels from noise to z_0."""
        return GRIDS[self.step_grid](schedule, self.intervals)

    def is_edms(self, diffusion_steps: int) -> bool:
        """Whether it is EDM's own, which then does the work itself: its results are to the last bit upstream's."""
        return self == Sampler.of({}, diffusion_steps)

    def record(self) -> dict[str, Any]:
        """The fields by name, for metrics.json and its like; those that came later only where they say something."""
        usual = {"probabilistic_model": DIFFUSION, "hold_frame": False}  # kept evaluations from before stay the same
        return {name: value for name, value in asdict(self).items() if name not in usual or value != usual[name]}

    def __str__(self) -> str:
        extra = f", {self.corrector_steps} Langevin" if self.corrector_steps else ""
        extra += ", R held" if self.hold_frame else ""
        return f"{self.sampler}, {self.sampling_steps} calls ({self.step_grid} grid, eta {self.stochasticity:g}{extra})"


def add_sampler_flags(add: Any, sampler: str | None = None, usual: str = "as the run was to be sampled") -> None:
    """Add the flags to a command line that has no kinds of its own.

    Args:
        add: ``add_argument`` of a parser or group.
        sampler: the default sampler; None where it is that of the run.
        usual: the default in words.
    """
    for name, kind in KINDS.items():
        first = name == "sampler"
        words = f"{HELP[name]} ({usual})" if first else HELP[name]
        add(f"--{name}", type=kind, default=sampler if first else None, metavar=kind.metavar, help=words)


def chosen(given: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling flags of ``given`` over those of ``before``, of which another sampler keeps none.

    Args:
        given: a command line's; None where a flag was not given.
        before: a run's.
    """
    new = {name: given[name] for name in KINDS if given.get(name) is not None}
    if new.get("sampler", before.get("sampler", EDMS)) != before.get("sampler", EDMS):
        before = {}
    return {name: new.get(name, before.get(name)) for name in KINDS}
