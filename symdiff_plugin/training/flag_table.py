"""Every flag of EDM's training scripts and of ours: its values, whose it is, and whether a resumed run may change it.

A flag that is not here cannot be parsed, and one of which nothing is said is every model's and stays the same for the
whole of a run: what may be ignored or may change is listed, not what may not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from symdiff_plugin.common.kinds import (
    BOOLEAN,
    FOLDER_NAME,
    SAMPLES,
    SCHEDULE,
    SEED,
    TEXT,
    Kind,
    choice,
    optional,
    positive_numbers,
    real,
    several,
    whole,
)
from symdiff_plugin.data.geom.split import SPLITS
from symdiff_plugin.data.schema import PROPERTIES, REFERENCE
from symdiff_plugin.presets import ARCHITECTURE_KINDS, COMPILE_MODES, PRESETS, RECIPES
from symdiff_plugin.process import probabilistic_model, sampler
from symdiff_plugin.training import learning_rate

EDM_MODELS = ("egnn_dynamics", "gnn_dynamics")
OURS = "the plugin's models"
# What EDM has statistics of; main_geom_drugs.py takes no other data, main_qm9.py does not take GEOM.
QM9_DATASETS = ("qm9", "qm9_second_half")
GEOM_DATASETS = ("geom",)
CONDITIONS = (*PROPERTIES, "omega1", *(f"{name}_thermo" for name in REFERENCE))

_EVERY = (*EDM_MODELS, OURS)
_OURS = (OURS,)
_EGNN = ("egnn_dynamics",)


@dataclass(frozen=True)
class Flag:
    """What is known of a flag.

    Attributes:
        kind: its values.
        models: those that it does something for; it is refused with the others.
        resumed: what holds in a run that goes on. ``same``: the value of the run, nothing else. ``free``: the run's,
            unless it is given; a change is recorded. ``anew``: of one start, whatever it was before.
    """

    kind: Kind
    models: tuple[str, ...] = _EVERY
    resumed: Literal["same", "free", "anew"] = "same"


# By their names in the namespace (no_cuda is --no-cuda, compat --symdiff_compat).
FLAGS: dict[str, Flag] = {
    "model": Flag(choice(*EDM_MODELS, *PRESETS)),
    "probabilistic_model": Flag(choice(*probabilistic_model.PROCESSES)),
    **{name: Flag(kind) for name, kind in probabilistic_model.KINDS.items()},
    # The diffusion. EDM's schedule overflows, in float64, at a precision below 1e-16.
    "diffusion_steps": Flag(whole(1, 1_000_000)),
    "diffusion_noise_schedule": Flag(SCHEDULE),
    "diffusion_noise_precision": Flag(real("[1e-12, 0.5)")),
    "diffusion_loss_type": Flag(choice("vlb", "l2")),
    "normalize_factors": Flag(positive_numbers(3, 1e-6, 1e6, "[1,4,10]")),
    "condition_time": Flag(Kind("True: every model sees the time", BOOLEAN.read, lambda value: value is True)),
    # The data.
    "dataset": Flag(choice(*QM9_DATASETS, *GEOM_DATASETS)),
    "datadir": Flag(TEXT, resumed="free"),  # where it is; what it holds is compared by itself
    "data_file": Flag(TEXT, resumed="free"),
    "split": Flag(choice(*SPLITS)),
    "split_seed": Flag(SEED),
    "filter_n_atoms": Flag(optional(whole())),
    "filter_molecule_size": Flag(optional(whole())),
    "sequential": Flag(BOOLEAN),
    "remove_h": Flag(BOOLEAN),
    "include_charges": Flag(BOOLEAN),
    "conditioning": Flag(several(choice(*CONDITIONS))),
    "data_augmentation": Flag(BOOLEAN),
    "augment_noise": Flag(real("[0, inf)")),
    # The training.
    "n_epochs": Flag(whole(0), resumed="free"),
    "batch_size": Flag(whole(), resumed="free"),
    "lr": Flag(real("(0, inf)"), resumed="free"),
    "ema_decay": Flag(real("[0, 1)")),
    "clip_grad": Flag(BOOLEAN),
    "seed": Flag(optional(SEED)),
    "start_epoch": Flag(whole(0)),
    "break_train_epoch": Flag(BOOLEAN),
    "all_classes": Flag(BOOLEAN),
    # What is printed and kept, and where it is computed.
    "exp_name": Flag(FOLDER_NAME, resumed="anew"),
    "resume": Flag(optional(TEXT), resumed="anew"),
    "overwrite": Flag(BOOLEAN, resumed="anew"),
    "checkpoint_minutes": Flag(real("[0, inf)"), resumed="free"),
    "save_model": Flag(BOOLEAN, resumed="free"),
    "keep_checkpoints": Flag(optional(BOOLEAN), resumed="free"),
    "test_epochs": Flag(whole(), resumed="free"),
    "n_stability_samples": Flag(SAMPLES, resumed="free"),
    "n_report_steps": Flag(whole(), resumed="free"),
    "visualize_every_batch": Flag(whole(), resumed="free"),
    "num_workers": Flag(whole(0, 1024), resumed="free"),
    "no_wandb": Flag(BOOLEAN, resumed="anew"),
    "wandb_usr": Flag(optional(TEXT), resumed="anew"),
    "online": Flag(BOOLEAN, resumed="anew"),
    "no_cuda": Flag(BOOLEAN, resumed="anew"),
    "dp": Flag(BOOLEAN, resumed="anew"),
    "debug_checks": Flag(BOOLEAN, resumed="anew"),
    # How molecules are drawn from what was learned.
    **{name: Flag(kind, resumed="free") for name, kind in sampler.KINDS.items()},
    # EDM's networks.
    "nf": Flag(whole(1, 16384), EDM_MODELS),
    "n_layers": Flag(whole(1, 1000), EDM_MODELS),
    "attention": Flag(BOOLEAN, EDM_MODELS),
    "normalization_factor": Flag(real("(0, inf)"), EDM_MODELS),
    "aggregation_method": Flag(choice("sum", "mean"), EDM_MODELS),
    "tanh": Flag(BOOLEAN, _EGNN),
    "norm_constant": Flag(real("[0, inf)"), _EGNN),
    "sin_embedding": Flag(BOOLEAN, _EGNN),
    "inv_sublayers": Flag(whole(1, 1000), _EGNN),
    # Read by nothing in EDM.
    "brute_force": Flag(BOOLEAN, EDM_MODELS),
    "actnorm": Flag(BOOLEAN, EDM_MODELS),
    "trace": Flag(choice("hutch", "exact"), EDM_MODELS),
    "dequantization": Flag(choice("uniform", "variational", "argmax_variational", "deterministic"), EDM_MODELS),
    "generate_epochs": Flag(whole(0), EDM_MODELS),
    "ode_regularization": Flag(real("[0, inf)"), EDM_MODELS),
    # Ours.
    **{name: Flag(kind, _OURS) for name, kind in ARCHITECTURE_KINDS.items()},
    "precision": Flag(ARCHITECTURE_KINDS["precision"], _OURS, "free"),
    "weight_decay": Flag(real("[0, inf)"), _OURS),
    "f_theta_lr": Flag(real("(0, inf)"), _OURS),
    "recipe": Flag(choice(*RECIPES), _OURS),
    "optimizer": Flag(choice("adamw", "muon"), _OURS),
    "muon_lr": Flag(real("(0, inf)"), _OURS),
    "warmup_steps": Flag(whole(0), _OURS),
    "decay": Flag(real("[0, 1]"), _OURS, "free"),
    "decay_shape": Flag(choice(*learning_rate.SHAPES), _OURS, "free"),
    "clip_norm": Flag(optional(real("(0, inf]")), _OURS),  # None: infinity, as JSON has it
    "freeze_epsilon": Flag(BOOLEAN, _OURS),
    "init_from": Flag(optional(TEXT), _OURS, "anew"),  # check_initial_weights compares it, however written
    "fused": Flag(BOOLEAN, _OURS, "free"),
    "compile": Flag(choice(*COMPILE_MODES), _OURS, "free"),
}

# Those of f_theta, which SymDiff-H and a plain DiT do without.
F_THETA = (*(name for name in ARCHITECTURE_KINDS if name.startswith(("enc_", "dec_", "noise_"))), "f_theta_lr")

# What --help says of our models' flags.
HELP = {
    "frame": "where R comes from: R0 f_theta (SymDiff), R0 alone (SymDiff-H) or the identity (DiT); R0 is of --base",
    "hidden_size": "width of epsilon_theta",
    "depth": "layers of epsilon_theta",
    "num_heads": "attention heads of epsilon_theta",
    "mlp_ratio": "width of epsilon_theta's MLPs, both halves of the SwiGLU, in hidden_size",
    "xh_hidden_size": "n_z, width of the embedding of [x, h]; Psi has the rest of hidden_size",
    "K": "Gaussian kernels of Psi",
    "enc_hidden_size": "width of f_theta",
    "enc_depth": "layers of f_theta",
    "enc_num_heads": "attention heads of f_theta",
    "enc_mlp_ratio": "width of f_theta's MLPs, in enc_hidden_size",
    "dec_hidden_features": "hidden width of f_theta's last two-layer network",
    "noise_dims": "m_noise, columns of eta",
    "noise_std": "standard deviation of eta",
    "mlp_dropout": "dropout inside the MLPs",
    "time_scale": "the network embeds time_scale * t, t in [0, 1]",
    "precision": "bf16: autocast inside the networks; geometry and outputs stay float32",
    "compat": "release: the authors' released model, which is not equivariant; release_fix_qr: theirs of --fix_qr",
    "group": "what the model is equivariant under: o3, or so3, rotations without reflections, which keeps chirality",
    "base": "the law of R0: the Haar measure, or pca, one of the molecule's principal frames with random signs",
    "weight_decay": "of AdamW",
    "f_theta_lr": "learning rate of f_theta, in --lr; less than 1 keeps f_theta from becoming a constant",
    "recipe": "paper, or fast: the defaults of how it is trained; fast has Muon, a rate that rises and falls, and a "
    "slower f_theta",
    "optimizer": "muon: Muon for the matrices of epsilon_theta's blocks, AdamW for everything else",
    "muon_lr": "learning rate of Muon, in --lr",
    "warmup_steps": "first steps, in which the learning rates rise from 0",
    "decay": "last part of the training, from 0 to 1, in which the learning rates fall to 0",
    "decay_shape": "how they fall: in a line, as a cosine, or as one minus a square root, the fastest first",
    "clip_norm": "largest gradient norm; inf does not clip",
    "fused": "True | False: torch's fused AdamW, the same but for rounding and the fastest; False: torch's own choice "
    "of the others",
    "freeze_epsilon": "True | False: train f_theta alone; epsilon_theta and Psi, which is f_theta's too, keep the "
    "weights of --init_from",
}


def concerns(name: str, model: str) -> bool:
    """Whether the flag ``name`` does anything for ``model``."""
    return (model if model in EDM_MODELS else OURS) in FLAGS[name].models


def fault(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first flag of a run's arguments whose value is none, and why ("must be ..."); None if all are in order.

    Args:
        values: arguments by name; those that are no flags are passed over.
    """
    for name, flag in FLAGS.items():
        if name in values and (found := flag.kind.fault(values[name])):
            return name, found
    return None


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The flags, save those of one start, that two runs' arguments have otherwise: (before, now) by name."""
    found = {}
    for name, flag in FLAGS.items():
        old, new = before.get(name), now.get(name)
        if flag.resumed != "anew" and _plain(old) != _plain(new):
            found[name] = (old, new)
    return found


def first_sigma(schedule: str, steps: int, precision: float) -> float:
    """EDM's sigma at t = 0, of a schedule that is not learned.

    Of its ``polynomial_P`` alpha^2 begins at 1 - ``precision``, whatever P is.
    """
    if schedule != "cosine":
        return math.sqrt(precision)
    begin, first = (math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2 for time in (0, 1 / (steps + 1)))
    return math.sqrt(min(1 - first / begin, 0.999))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
