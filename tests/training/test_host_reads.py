"""Numbers and batches between the host and the device."""

from __future__ import annotations

import pytest
import torch

from symdiff_plugin.training.host_reads import Arriving, read, to_device

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]


@pytest.mark.parametrize("device", DEVICES)
def test_numbers_are_read_as_they_are(device: str) -> None:
    weight = torch.tensor(0.1, device=device, requires_grad=True)
    values = [weight * 3, torch.tensor([0.7], device=device), 2.5, torch.tensor(float("nan"), device=device)]
    found = read(*values)
    assert found[:3] == [(weight * 3).item(), torch.tensor(0.7).item(), 2.5]
    assert found[3] != found[3]
    assert all(isinstance(value, float) for value in found)  # EDM's report calls their item() all the same
    assert found[2].item() == 2.5
    assert read() == []
    assert read(1.5, 2.5) == [1.5, 2.5]


@pytest.mark.parametrize("device", DEVICES)
def test_a_number_arrives(device: str) -> None:
    tensor = torch.tensor([0.1], device=device)
    arriving = Arriving(tensor)
    assert arriving.there == (device == "cpu")
    assert arriving.value() == torch.tensor(0.1).item()


def make_batch() -> dict[str, torch.Tensor]:
    return {
        "positions": torch.randn(3, 5, 3), "one_hot": torch.rand(3, 5, 5) < 0.5, "charges": torch.zeros(0),
        "atom_mask": torch.rand(3, 5) < 0.5, "edge_mask": torch.rand(3, 25) < 0.5, "alpha": torch.randn(3),
        "mu": torch.randn(3),
    }  # fmt: skip


def test_on_the_cpu_a_batch_stays_what_it_is() -> None:
    batch = make_batch()
    assert to_device(batch, torch.device("cpu"), ["alpha"]) is batch


@NEEDS_GPU
def test_what_is_trained_on_goes_to_the_gpu() -> None:
    batch = make_batch()
    moved = to_device(batch, torch.device("cuda"), ["alpha"])
    assert {key for key, value in moved.items() if not value.is_cuda} == {"mu"}
    assert all(torch.equal(value.cpu(), batch[key]) and value.dtype == batch[key].dtype for key, value in moved.items())
