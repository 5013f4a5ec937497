r"""Every model of the paper as data: sizes, optimiser, epochs.

Sizes: Tables 3 and 5 and Appendix C.2.1 of Zhang et al. (2024); ``xh_hidden_size`` (n_z), ``K`` and
``dec_hidden_features`` follow the authors' scripts where the paper is silent. Training: Appendix C.2.2 (QM9), C.3
(GEOM-Drugs), C.4 (DiT-FT); amsgrad and clipping are the release's. EDM's EGNN baselines: Table 6 and EDM's README.

Nothing here needs torch: the set-up scripts read it too.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from symdiff_plugin.common.kinds import Kind, choice, real, whole

FRAMES = ("learned", "haar", "none")
PRECISIONS = ("fp32", "bf16")
GROUPS = ("o3", "so3")
BASES = ("haar", "pca")
COMPATS = ("paper", "release", "release_fix_qr")
COMPILE_MODES = ("off", "default", "reduce-overhead")

_WIDTH, _COUNT = whole(1, 16384), whole(1, 1000)
# What the fields of an Architecture may be, each for itself.
ARCHITECTURE_KINDS: dict[str, Kind] = {
    "frame": choice(*FRAMES),
    "hidden_size": _WIDTH, "depth": _COUNT, "num_heads": _COUNT, "mlp_ratio": real("[0.1, 64]"),
    "xh_hidden_size": _WIDTH, "K": _WIDTH,
    "enc_hidden_size": _WIDTH, "enc_depth": _COUNT, "enc_num_heads": _COUNT, "enc_mlp_ratio": real("[0.1, 64]"),
    "dec_hidden_features": _WIDTH,
    "noise_dims": _COUNT, "noise_std": real("[0, inf)"), "mlp_dropout": real("[0, 1)"), "time_scale": real("(0, inf)"),
    "precision": choice(*PRECISIONS), "compat": choice(*COMPATS),
    "group": choice(*GROUPS), "base": choice(*BASES),
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """The sizes of epsilon_theta, f_theta and Psi, and how they are put together.

    Attributes:
        frame: where R comes from: ``learned`` (R = R0 f_theta, SymDiff), ``haar`` (R = R0, SymDiff-H) or
            ``none`` (R = I, a plain DiT). R0 is drawn from ``base``.
        hidden_size, depth, num_heads, mlp_ratio: the DiT of epsilon_theta; ``mlp_ratio`` counts both halves
            of the SwiGLU, whose hidden size is ``mlp_ratio / 2 * hidden_size``.
        xh_hidden_size: n_z, the width of the embedding of [x, h]; Psi has the other
            n_emb = ``hidden_size - xh_hidden_size`` columns.
        K: number of Gaussian kernels of Psi.
        enc_hidden_size, enc_depth, enc_num_heads, enc_mlp_ratio: the DiT of f_theta.
        dec_hidden_features: hidden width of f_theta's last two-layer network.
        noise_dims, noise_std: m_noise and the standard deviation of eta.
        mlp_dropout: dropout inside the SwiGLU layers.
        time_scale: the DiT embeds ``time_scale * t``, t in [0, 1]. The paper has "the default time embeddings"
            (B.1), which in DiT take integer steps: 1000 makes them so for T = 1000; 1 is the release's.
        precision: ``fp32``, or ``bf16`` for autocast inside the DiTs (geometry and outputs stay as they are).
        compat: ``paper``, or ``release`` for the authors' released model (which is not equivariant);
            ``release_fix_qr`` for one that was trained with their flag ``--fix_qr``.
        group: under what the model is equivariant: ``o3``, or ``so3``, which tells mirror images apart.
        base: gamma_0, the law of R0: the Haar measure, or a random one of the molecule's PCA frames.
    """

    frame: Literal["learned", "haar", "none"] = "learned"
    hidden_size: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    xh_hidden_size: int = 184
    K: int = 184
    enc_hidden_size: int = 128
    enc_depth: int = 8
    enc_num_heads: int = 4
    enc_mlp_ratio: float = 4.0
    dec_hidden_features: int = 64
    noise_dims: int = 3
    noise_std: float = 1.0
    mlp_dropout: float = 0.0
    time_scale: float = 1000.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compat: Literal["paper", "release", "release_fix_qr"] = "paper"
    group: Literal["o3", "so3"] = "o3"
    base: Literal["haar", "pca"] = "haar"

    @property
    def is_release(self) -> bool:
        """Whether it is the authors' released model; its outputs then depend on the padding too."""
        return self.compat != "paper"

    def __post_init__(self) -> None:
        for name, kind in ARCHITECTURE_KINDS.items():
            if fault := kind.fault(getattr(self, name)):
                raise ValueError(f"{name} {fault}")
        for size, heads in (("hidden_size", "num_heads"), ("enc_hidden_size", "enc_num_heads")):
            width, count = getattr(self, size), getattr(self, heads)
            if width % count:
                raise ValueError(f"{size} = {width} must be a multiple of {heads} = {count}")
        if self.xh_hidden_size >= self.hidden_size:
            raise ValueError(
                f"xh_hidden_size = {self.xh_hidden_size} must be below hidden_size = {self.hidden_size}: "
                "Psi has the other columns"
            )
        if self.is_release and (self.frame == "haar" or (self.frame == "none" and self.compat != "release")):
            raise ValueError(
                f"compat={self.compat!r} is for the released symdiff models{' and dit' * (self.compat == 'release')}, "
                f"not for frame={self.frame!r}"
            )
        for name, usual in (("group", "o3"), ("base", "haar")):
            if (value := getattr(self, name)) != usual and (self.is_release or self.frame == "none"):
                owner = f"compat={self.compat!r}" if self.is_release else "frame='none'"
                raise ValueError(f"{name}={value!r} is for symmetrised models of the paper, not for {owner}")


# What a recipe has otherwise than a preset's training. ``fast`` is ours, for a good model in less time: docs/edm.md.
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "fast": {"optimizer": "muon", "warmup_steps": 100, "decay": 0.3, "f_theta_lr": 0.1, "lr": 1e-3},
}


@dataclass(frozen=True)
class Training:
    """Defaults of a run, under the names of ``main_qm9.py``'s flags and of ours; an explicit flag wins."""

    n_epochs: int = 4350
    batch_size: int = 256
    lr: float = 2e-4
    recipe: str = "paper"
    weight_decay: float = 1e-12
    clip_norm: float = 2.0
    f_theta_lr: float = 1.0
    optimizer: str = "adamw"
    muon_lr: float = 4.0
    warmup_steps: int = 0
    decay: float = 0.0
    decay_shape: str = "linear"
    fused: bool = True
    compile: str = "off"
    ema_decay: float = 0.9999
    diffusion_steps: int = 1000
    diffusion_noise_schedule: str = "polynomial_2"
    diffusion_noise_precision: float = 1e-5
    diffusion_loss_type: str = "l2"
    normalize_factors: tuple[int, int, int] = (1, 4, 10)
    data_augmentation: bool = False
    freeze_epsilon: bool = False
    test_epochs: int = 20
    n_stability_samples: int = 1000
    n_report_steps: int = 100
    sampler: str = "ancestral"

    def flags(self) -> dict[str, Any]:
        """The defaults as EDM's argument parser takes them (its lists are lists)."""
        return {**asdict(self), "normalize_factors": list(self.normalize_factors)}


@dataclass(frozen=True)
class Preset:
    """One model: what it is called in the paper, its architecture and the defaults of its training.

    Attributes:
        label: its name in the paper.
        architecture: its sizes.
        training: defaults of a run.
        geom: what GEOM-Drugs changes of these.
        starts_from: the preset whose trained weights epsilon_theta and Psi start from (``--init_from``).
        release: what the authors' release has otherwise in this model's architecture, beside ``compat``.
    """

    label: str
    architecture: Architecture = field(default_factory=Architecture)
    training: Training = field(default_factory=Training)
    geom: dict[str, Any] = field(default_factory=lambda: {"lr": 1e-4, "n_epochs": 55, "test_epochs": 1})
    starts_from: str | None = None
    release: dict[str, Any] = field(default_factory=lambda: {"time_scale": 1.0})

    def training_flags(self, dataset: str = "qm9", recipe: str | None = None) -> dict[str, Any]:
        """Defaults of a run on ``dataset`` (``qm9`` and its halves, or ``geom``), by the preset's recipe or another."""
        training = replace(self.training, **self.geom) if dataset == "geom" else self.training
        recipe = recipe or training.recipe
        return replace(training, recipe=recipe, **RECIPES[recipe]).flags()


ARCHITECTURE_FIELDS = tuple(f.name for f in fields(Architecture))

_BASE = Architecture()
_STAR = Architecture(
    hidden_size=768, num_heads=12, xh_hidden_size=382, K=382,
    enc_hidden_size=216, enc_depth=10, enc_num_heads=8, dec_hidden_features=108,
)  # fmt: skip
_MINUS = Architecture(hidden_size=360, depth=10, xh_hidden_size=180, K=180)
_MINUS_MINUS = Architecture(hidden_size=294, depth=8, xh_hidden_size=147, K=147)

# Sizes that two CPU cores can train; not from the paper. Their EMA is short because their runs are.
_TINY = Architecture(
    hidden_size=128, depth=6, num_heads=4, xh_hidden_size=64, K=64,
    enc_hidden_size=64, enc_depth=3, enc_num_heads=4, dec_hidden_features=32,
)  # fmt: skip
_SMALL = Architecture(
    hidden_size=192, depth=8, num_heads=6, xh_hidden_size=96, K=96,
    enc_hidden_size=96, enc_depth=4, enc_num_heads=4, dec_hidden_features=48,
)  # fmt: skip
# Appendix C.4: finetuning a DiT inside SymDiff.
_FINETUNING = Training(n_epochs=800, lr=1e-3, weight_decay=2e-12)
_CPU = Training(
    n_epochs=10, batch_size=64, lr=5e-4, ema_decay=0.999, test_epochs=1, n_stability_samples=100, sampler="sde-dpm++",
)  # fmt: skip


def _cpu(label: str, architecture: Architecture, starts_from: str | None = None, **training: Any) -> Preset:
    """A preset for CPUs, with the same training on every data set."""
    return Preset(label, architecture, replace(_CPU, **training), {}, starts_from)


#: Every model that :func:`~symdiff_plugin.model.dynamics.build_dynamics` makes and ``--model`` takes, by name.
PRESETS: dict[str, Preset] = {
    "symdiff": Preset("SymDiff", _BASE),
    "symdiff_star": Preset(
        "SymDiff*", _STAR, Training(lr=1e-4), release={"time_scale": 1.0, "dec_hidden_features": 80}
    ),
    "symdiff_minus": Preset("SymDiff-", _MINUS),
    "symdiff_minus_minus": Preset("SymDiff--", _MINUS_MINUS),
    "symdiff_h": Preset("SymDiff-H", replace(_BASE, frame="haar")),
    "symdiff_pca": Preset("SymDiff-PCA", replace(_BASE, frame="haar", base="pca")),
    "symdiff_pca_f": Preset("SymDiff-PCA-f", replace(_BASE, base="pca")),
    "dit": Preset("DiT", replace(_BASE, frame="none")),
    "dit_aug": Preset("DiT-Aug", replace(_BASE, frame="none"), Training(data_augmentation=True)),
    "dit_ft": Preset("DiT-FT", _BASE, _FINETUNING, starts_from="dit"),
    "dit_ft_freeze": Preset("DiT-FT-Freeze", _BASE, replace(_FINETUNING, freeze_epsilon=True), starts_from="dit"),
    "symdiff_small": _cpu("SymDiff, small", _SMALL),
    "symdiff_tiny": _cpu("SymDiff, tiny", _TINY),
    "symdiff_h_tiny": _cpu("SymDiff-H, tiny", replace(_TINY, frame="haar")),
    "dit_tiny": _cpu("DiT, tiny", replace(_TINY, frame="none")),
    "dit_aug_tiny": _cpu("DiT-Aug, tiny", replace(_TINY, frame="none"), data_augmentation=True),
    "dit_ft_tiny": _cpu("DiT-FT, tiny", _TINY, "dit_tiny"),
    "dit_ft_freeze_tiny": _cpu("DiT-FT-Freeze, tiny", _TINY, "dit_tiny", freeze_epsilon=True),
}

_EDM_README: dict[str, Any] = {
    "model": "egnn_dynamics", "n_epochs": 3000, "n_stability_samples": 1000,
    "diffusion_noise_schedule": "polynomial_2", "diffusion_noise_precision": 1e-5, "diffusion_steps": 1000,
    "diffusion_loss_type": "l2", "batch_size": 64, "nf": 256, "n_layers": 9, "lr": 1e-4,
    "normalize_factors": [1, 4, 10], "test_epochs": 20, "ema_decay": 0.9999,
}  # fmt: skip
#: EDM's own EGNN at the three sizes of Table 6, with the settings of EDM's README. They are not built by the
#: plugin: each is ``--model egnn_dynamics`` with these flags of ``main_qm9.py``.
EGNN_BASELINES: dict[str, dict[str, Any]] = {
    "edm": _EDM_README,
    "edm_plus": {**_EDM_README, "n_layers": 16},
    "edm_plus_plus": {**_EDM_README, "n_layers": 12, "nf": 332},
    # CPU-sized, not from the papers: trained as the CPU-sized presets are, at the step time that comes nearest to
    # theirs while its width still learns something.
    "edm_tiny": {
        **_EDM_README,
        "n_layers": 4,
        "nf": 64,
        "n_epochs": _CPU.n_epochs,
        "lr": _CPU.lr,
        "ema_decay": _CPU.ema_decay,
        "test_epochs": _CPU.test_epochs,
        "n_stability_samples": _CPU.n_stability_samples,
        "sampler": _CPU.sampler,
    },
}
# On GEOM-Drugs EDM's README has one size, with four layers; what it does not name is main_geom_drugs.py's default.
_GEOM_README: dict[str, Any] = {
    "n_layers": 4, "normalization_factor": 1, "test_epochs": 1, "n_stability_samples": 500,
    "visualize_every_batch": 10000,
}  # fmt: skip
EGNN_GEOM_BASELINES: dict[str, dict[str, Any]] = {
    "edm": {**EGNN_BASELINES["edm"], **_GEOM_README},
    "edm_tiny": {**EGNN_BASELINES["edm_tiny"], **_GEOM_README, "n_stability_samples": _CPU.n_stability_samples},
}


def get_preset(name: str) -> Preset:
    """The preset called ``name``.

    Raises:
        ValueError: no preset has that name; the message lists those there are.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def get_architecture(name: str, **overrides: Any) -> Architecture:
    """The architecture of the preset ``name``, with some of its fields replaced.

    ``compat="release"`` also means what else the release has otherwise (its ``time_scale`` is 1), unless that is given.

    Raises:
        ValueError: unknown preset or value.
        TypeError: an override that is no field of :class:`Architecture`.
    """
    unknown = sorted(set(overrides) - set(ARCHITECTURE_FIELDS))
    if unknown:
        raise TypeError(f"unknown override {unknown[0]!r}; choose from {', '.join(ARCHITECTURE_FIELDS)}")
    preset = get_preset(name)
    if overrides.get("compat", preset.architecture.compat) != preset.architecture.compat:
        overrides = {**preset.release, **overrides}
    return replace(preset.architecture, **overrides)


def command_line(name: str, dataset: str = "qm9") -> list[str]:
    """The flags of EDM's training script that make it train the preset or EGNN baseline ``name``.

    Args:
        name: of a preset, or ``edm``, ``edm_tiny``, on QM9 also ``edm_plus``, ``edm_plus_plus``.
        dataset: ``qm9`` for ``main_qm9.py``, ``geom`` for ``main_geom_drugs.py``.

    Raises:
        ValueError: nothing has that name there; the message lists those there are.
    """
    if name in PRESETS:
        return ["--model", name]
    baselines = {"qm9": EGNN_BASELINES, "geom": EGNN_GEOM_BASELINES}[dataset]
    if name not in baselines:
        where = " for GEOM-Drugs" if name in EGNN_BASELINES else ""
        raise ValueError(f"unknown preset {name!r}{where}; choose one of {', '.join([*PRESETS, *baselines])}")
    return [text for flag, value in baselines[name].items() for text in (f"--{flag}", str(value).replace(" ", ""))]


def main(arguments: list[str]) -> int:
    """``python -m symdiff_plugin.presets list``, or ``flags NAME [geom]``: for the scripts, one word a line."""
    if arguments == ["list"]:
        print("\n".join([*PRESETS, *EGNN_BASELINES]))
        return 0
    if len(arguments) not in (2, 3) or arguments[0] != "flags" or arguments[2:] not in ([], ["geom"]):
        print("usage: python -m symdiff_plugin.presets list | flags NAME [geom]", file=sys.stderr)
        return 2
    try:
        print("\n".join(command_line(*arguments[1:])))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
