import pytest
import torch

from symdiff_plugin.packed.precision import autocast, compute_dtype

SINGLE, HALF, DOUBLE = torch.float32, torch.bfloat16, torch.float64


@pytest.mark.parametrize("enabled", [True, False])
def test_autocast_is_bfloat16s_and_can_be_switched_off_inside(enabled):
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.float16), autocast("cpu", enabled):
        assert (x @ x).dtype == (HALF if enabled else SINGLE)


def test_devices_without_autocast_are_left_alone():
    with autocast("meta", True):
        x = torch.ones(2, 2, device="meta")
        assert (x @ x).dtype == SINGLE
    assert compute_dtype(x) == SINGLE


def test_a_linear_computes_in_this_type():
    for dtype in (SINGLE, HALF, DOUBLE):
        x = torch.ones(2, 2, dtype=dtype)
        assert compute_dtype(x) == (x @ x).dtype == dtype
        with autocast("cpu", True):
            assert compute_dtype(x) == (DOUBLE if dtype == DOUBLE else HALF)
            if dtype != DOUBLE:
                assert compute_dtype(x) == torch.nn.functional.linear(x, x).dtype
        with torch.autocast("cpu", torch.float16):
            assert compute_dtype(torch.ones(2, 2)) == torch.float16
