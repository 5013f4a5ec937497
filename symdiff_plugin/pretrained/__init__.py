"""Trained models that come with the package, and how to load them: no EDM, no pickle.

    from symdiff_plugin.pretrained import load
    model = load("qm9-mini")

A model is two files: ``NAME.safetensors``, the moving average of a run's weights in float32, and ``NAME.json``, its
card: architecture, diffusion, atom types, histogram of sizes, how it was trained, what was measured, and the SHA-256
of the weights. ``python -m symdiff_plugin.pretrained export outputs/NAME --name NAME`` makes both from a run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from symdiff_plugin.common.weights import finite, mismatch
from symdiff_plugin.model.dynamics import DiTDynamics, build_dynamics
from symdiff_plugin.process.flow_path import FlowPath
from symdiff_plugin.process.probabilistic_model import DIFFUSION, FLOW
from symdiff_plugin.process.schedule import NoiseSchedule, schedule_of

FOLDER = Path(__file__).resolve().parent
FORMAT = 1


class PretrainedError(ValueError):
    """A model that cannot be loaded or exported; the message is one line, with the remedy."""


@dataclass(frozen=True)
class Pretrained:
    """A trained model, ready to sample.

    Attributes:
        name: what it is called.
        card: what ``NAME.json`` holds.
        dynamics: the network, in eval mode on its device.
        schedule: of the diffusion; of a flow its path.
        atom_types: the symbol of every atom type.
        n_features: columns of h: the atom types and, if it is modelled, the charge.
        position_scale: Angstrom a unit of x.
        sizes: (S,) numbers of atoms.
        probabilities: (S,) float64, of each.
    """

    name: str
    card: dict[str, Any]
    dynamics: DiTDynamics
    schedule: NoiseSchedule | FlowPath
    atom_types: tuple[str, ...]
    n_features: int
    position_scale: float
    sizes: Tensor
    probabilities: Tensor

    @property
    def device(self) -> torch.device:
        return next(self.dynamics.parameters()).device

    def draw_sizes(self, n_samples: int) -> Tensor:
        """(n_samples,) numbers of atoms from the training set's histogram, the same that EDM draws from a seed."""
        return self.sizes[torch.multinomial(self.probabilities, n_samples, replacement=True)]


def available(folder: Path | None = None) -> list[str]:
    """The names of the models in ``folder`` (the package's own), sorted."""
    return sorted(path.stem for path in (folder or FOLDER).glob("*.json"))


def load(
    name: str, device: torch.device | str = "cpu", precision: str = "fp32", folder: Path | None = None
) -> Pretrained:
    """Load a model, its file checked to the last byte.

    Args:
        name: one of :func:`available`.
        device: where it is put.
        precision: ``fp32``, or ``bf16`` for autocast inside the network.
        folder: where the files are; the package's own if not given.

    Raises:
        PretrainedError: there is no model of that name, or its files are damaged or of another version.
    """
    folder = folder or FOLDER
    if name not in available(folder):
        there = ", ".join(available(folder)) or "none is there: make one with python -m symdiff_plugin.pretrained"
        raise PretrainedError(f"no pretrained model is called {name!r} (available: {there})")
    card = _read_card(folder / f"{name}.json")
    return assemble(name, card, _read_weights(folder / f"{name}.safetensors", card), device, precision)


def assemble(
    name: str, card: dict[str, Any], weights: dict[str, Tensor], device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> Pretrained:  # fmt: skip
    """A model from its card and the state dict of its network.

    Raises:
        PretrainedError: the card describes no model, or another than the weights'.
    """
    try:
        diffusion, counts = card["diffusion"], card["n_nodes"]
        atom_types = tuple(card["atom_types"])
        n_features = len(atom_types) + int(card["include_charges"])
        settings = {**card["architecture"], "precision": precision}
        dynamics = build_dynamics(card["model"], n_features, **settings)
        process = card.get("probabilistic_model", DIFFUSION)
        schedule: NoiseSchedule | FlowPath
        if process == FLOW:
            schedule = FlowPath(float(card["flow_sigma"]))
        else:
            schedule = schedule_of(diffusion["noise_schedule"], diffusion["steps"], diffusion["noise_precision"])
        probabilities = torch.tensor(list(counts.values()), dtype=torch.float64)
        sizes = torch.tensor([int(size) for size in counts])
        position_scale = float(card["normalize_factors"][0])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise PretrainedError(f"the card of {name} does not describe a model ({error}): {_RESTORE}") from error
    odd = mismatch(dynamics.state_dict(), weights)
    if odd is not None:
        raise PretrainedError(f"the weights of {name} do not fit its card: {odd}: {_RESTORE}")
    dynamics.load_state_dict(weights)
    dynamics.to(device).eval().requires_grad_(False)
    return Pretrained(
        name, card, dynamics, schedule, atom_types, n_features, position_scale,
        sizes, probabilities / probabilities.sum(),
    )  # fmt: skip


_RESTORE = "restore both files, with git checkout or by installing again"


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        version = card["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PretrainedError(f"{path} is damaged ({type(error).__name__}): {_RESTORE}") from error
    if version != FORMAT:
        raise PretrainedError(f"{path} has format {version}, and this version reads {FORMAT}: install a newer one")
    return card


def _read_weights(path: Path, card: dict[str, Any]) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PretrainedError(f"{path} cannot be read ({error.strerror or error}): {_RESTORE}") from error
    if hashlib.sha256(content).hexdigest() != card.get("weights", {}).get("sha256"):
        raise PretrainedError(f"{path} is damaged, or not the file of its card (SHA-256 differs): {_RESTORE}")
    try:
        weights = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise PretrainedError(f"{path} holds no weights ({type(error).__name__}): {_RESTORE}") from error
    try:
        return finite(weights, path)
    except ValueError as error:
        raise PretrainedError(str(error)) from error


def architecture_of(dynamics: DiTDynamics) -> dict[str, Any]:
    """The fields of the architecture, for a card; the precision is chosen when the model is loaded."""
    return {key: value for key, value in asdict(dynamics.architecture).items() if key != "precision"}
