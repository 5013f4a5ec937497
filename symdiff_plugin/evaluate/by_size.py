"""Batches of molecules of about the same size, the largest first, in as many pieces as memory asks for."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

from symdiff_plugin.common.errors import EvaluationError
from symdiff_plugin.molecules.molecule import Molecule


def in_batches(
    sizes: Tensor, batch_size: int, device: torch.device, sample: Callable[[Tensor], list[Molecule] | None]
) -> tuple[list[Molecule], list[int]]:
    """Sample molecules of the given sizes, those of about the same size together.

    Where a GPU's memory does not suffice, the batch is halved, for good, and begun again with the random numbers of
    its first attempt: from there all is as with the smaller ``batch_size``.

    Args:
        sizes: (n_samples,) numbers of atoms.
        batch_size: molecules at once; the last batch may be smaller.
        device: whose generator and memory are used.
        sample: takes indices of ``sizes``, the largest molecule's first, and returns the molecules, or None if the
            memory of the GPU is too small for so many.

    Returns:
        The molecules in the order of ``sizes``, and how many were sampled at once, batch by batch.

    Raises:
        EvaluationError: a single molecule does not fit into the memory of the GPU.
    """
    order = torch.argsort(sizes, descending=True, stable=True)
    molecules: dict[int, Molecule] = {}
    batch_sizes: list[int] = []
    while len(molecules) < len(sizes):
        batch = order[len(molecules) :][:batch_size]
        state = _generators(device)
        sampled = sample(batch)
        if sampled is None:
            batch_size = _halve(len(batch), int(sizes[batch[0]]))
            _restore(device, state)
            continue
        molecules.update(zip(batch.tolist(), sampled, strict=True))
        batch_sizes.append(len(batch))
    return [molecules[index] for index in range(len(sizes))], batch_sizes


def _halve(n_molecules: int, n_atoms: int) -> int:
    if n_molecules == 1:
        raise EvaluationError(
            f"a molecule of {n_atoms} atoms does not fit into the memory of the GPU: free it of other work, "
            "or give --device cpu"
        )
    tqdm.write(f"Out of memory: sampling {n_molecules // 2} molecules at once, not {n_molecules}", file=sys.stderr)
    torch.cuda.empty_cache()
    return n_molecules // 2


def _generators(device: torch.device) -> list[Tensor]:
    """The state of torch's global generators: of the CPU and, if that is another, of the device."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _restore(device: torch.device, state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
