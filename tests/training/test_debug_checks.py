"""EDM's checks of masks, centres of mass and NaN: made when asked for, and nothing depends on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch

from symdiff_plugin.edm import import_edm
from symdiff_plugin.training.debug_checks import checking, enable_checks, zeros_if_nan


@pytest.fixture(autouse=True)
def off_again() -> Iterator[None]:
    yield
    enable_checks(False)


@pytest.fixture
def edm_utils(edm_path: object) -> ModuleType:
    return import_edm("equivariant_diffusion.utils")


def test_they_are_off_until_asked_for() -> None:
    assert not checking()
    enable_checks()
    assert checking()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x[0, 3].fill_(1.0),  # an atom where there is padding
        lambda x: x[0, :3].add_(1.0),  # off centre
        lambda x: x[1, 0].fill_(float("nan")),
    ],
)
def test_what_upstream_asserts_is_asserted(spoil: Callable[[torch.Tensor], object], edm_utils: ModuleType) -> None:
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1]])[..., None]
    x = edm_utils.sample_center_gravity_zero_gaussian_with_mask((2, 4, 3), torch.device("cpu"), mask)
    enable_checks()
    edm_utils.assert_mean_zero_with_mask(x, mask)
    spoil(x)
    with pytest.raises(AssertionError):
        edm_utils.assert_mean_zero_with_mask(x, mask)
    enable_checks(False)
    edm_utils.assert_mean_zero_with_mask(x, mask)


def test_atoms_in_the_padding_are_found_where_means_are_removed(edm_utils: ModuleType) -> None:
    x, mask = torch.ones(1, 2, 3), torch.tensor([[[1.0], [0.0]]])
    expected = edm_utils.remove_mean_with_mask(x, mask)
    enable_checks()
    with pytest.raises(AssertionError, match="too high"):
        edm_utils.remove_mean_with_mask(x, mask)
    enable_checks(False)
    assert torch.equal(edm_utils.remove_mean_with_mask(x, mask), expected)


@pytest.mark.parametrize("enabled", [False, True])
def test_a_nan_resets_the_whole_velocity(enabled: bool, capsys: pytest.CaptureFixture[str]) -> None:
    enable_checks(enabled)
    velocity = torch.randn(3, 4, 3)
    velocity[0, 0, 0] = -0.0
    kept = zeros_if_nan(velocity)
    assert torch.equal(kept.view(torch.int32), velocity.view(torch.int32))  # the sign of zero too
    assert capsys.readouterr().out == ""
    velocity[2, 1, 0] = float("nan")
    assert torch.equal(zeros_if_nan(velocity), torch.zeros(3, 4, 3))
    assert capsys.readouterr().out == "Warning: detected nan, resetting EGNN output to zero.\n" * enabled
