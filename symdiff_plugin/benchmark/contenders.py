"""What is compared: a preset or one of EDM's EGNNs, inside EDM's own diffusion model."""

from __future__ import annotations

import argparse
import contextlib
import io
from dataclasses import dataclass
from typing import Any

import torch

from symdiff_plugin.edm import import_edm
from symdiff_plugin.presets import EGNN_BASELINES, EGNN_GEOM_BASELINES, PRECISIONS, PRESETS, get_preset

# The rest of what get_model reads, as the READMEs of EDM and of the paper's code leave it.
_EDM_DEFAULTS: dict[str, Any] = {
    "conditioning": [], "condition_time": True, "context_node_nf": 0, "attention": True, "tanh": True,
    "norm_constant": 1, "inv_sublayers": 1, "sin_embedding": False, "normalization_factor": 1,
    "aggregation_method": "sum", "probabilistic_model": "diffusion", "remove_h": False, "clip_grad": True,
}  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """A model as the command line names it: ``symdiff``, ``symdiff:bf16``, ``symdiff:bf16:compile``, ``edm``.

    Attributes:
        name: a preset, or ``edm``, ``edm_plus``, ``edm_plus_plus``, ``edm_tiny``.
        precision: ``fp32`` or ``bf16``.
        compiled: whether the blocks go through ``torch.compile``.
    """

    name: str
    precision: str = "fp32"
    compiled: bool = False

    @classmethod
    def parse(cls, text: str) -> Contender:
        """Read the notation of the command line.

        Raises:
            ValueError: unknown model or switch, or a switch on EDM's own model, which has none.
        """
        name, *switches = text.split(":")
        if name not in PRESETS and name not in EGNN_BASELINES:
            raise ValueError(f"unknown model {name!r}; choose from {', '.join([*PRESETS, *EGNN_BASELINES])}")
        if switches and name in EGNN_BASELINES:
            raise ValueError(f"{text}: EDM's own model takes no switches, only the plugin's do")
        unknown = [switch for switch in switches if switch not in (*PRECISIONS, "compile")]
        if unknown:
            raise ValueError(f"{text}: unknown switch {unknown[0]!r}; choose from {', '.join(PRECISIONS)}, compile")
        precision = next((switch for switch in switches if switch in PRECISIONS), "fp32")
        return cls(name, precision, "compile" in switches)

    @property
    def is_egnn(self) -> bool:
        return self.name in EGNN_BASELINES

    def __str__(self) -> str:
        switches = [self.precision] if self.precision != "fp32" else []
        return ":".join([self.name, *switches, *(["compile"] if self.compiled else [])])


@dataclass
class Model:
    """EDM's diffusion model around one contender's dynamics.

    Attributes:
        args: what EDM's functions and our hooks read of a run's arguments.
        diffusion: EDM's ``EnVariationalDiffusion``.
        nodes_dist: EDM's distribution of the number of atoms.
        dataset_info: EDM's description of the data set.
    """

    args: argparse.Namespace
    diffusion: Any
    nodes_dist: Any
    dataset_info: dict[str, Any]

    @property
    def parameters(self) -> int:
        """How many parameters are trained."""
        return sum(p.numel() for p in self.diffusion.parameters() if p.requires_grad)


def build(contender: Contender, dataset: str, device: torch.device, seed: int = 0) -> Model:
    """The contender on ``qm9`` or ``geom``, with the settings of its paper and generic weights.

    Raises:
        EdmError: EDM is missing or unpatched.
    """
    args = argparse.Namespace(**_arguments(contender, dataset))
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):  # EDM prints its noise schedule
        dataset_info = import_edm("configs.datasets_config").get_dataset_info(dataset, False)
        diffusion, nodes_dist, _ = import_edm("qm9.models").get_model(args, device, dict(dataset_info), None)
    return Model(args, diffusion.to(device), nodes_dist, dataset_info)


def _arguments(contender: Contender, dataset: str) -> dict[str, Any]:
    common = {**_EDM_DEFAULTS, "dataset": dataset, "include_charges": dataset == "qm9"}
    if contender.is_egnn:
        flags = dict(EGNN_BASELINES[contender.name])
        if dataset == "geom":
            flags["n_layers"] = EGNN_GEOM_BASELINES["edm"]["n_layers"]
        return {**common, **flags}
    switches = {"precision": contender.precision, "compile": "default" if contender.compiled else "off"}
    flags = get_preset(contender.name).training_flags(dataset)
    return {**common, **flags, **switches, "model": contender.name, "exp_name": str(contender)}
