import pytest
import torch

from symdiff_plugin.packed import row_slices as slices
from symdiff_plugin.packed.row_slices import row_slices

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.mark.parametrize(
    ("rows", "width", "device", "elsewhere", "lengths"),
    [
        (10, 4, CPU, None, [3, 3, 3, 1]),  # 12 elements at once
        (9, 4, CPU, None, [3, 3, 3]),
        (10, 100, CPU, None, [1] * 10),  # at least one row
        (30, 0, CPU, None, [12, 12, 6]),
        (10, 4, META, None, [10]),  # elsewhere all at once
        (10, 4, META, 20, [5, 5]),
        (10, 4, CPU, 20, [3, 3, 3, 1]),
        (10, 4, META, 1, [1] * 10),
        (0, 4, CPU, None, []),
        (0, 4, META, None, []),
    ],
)
def test_slices_follow_each_other_and_are_of_the_size_asked_for(rows, width, device, elsewhere, lengths, monkeypatch):
    monkeypatch.setattr(slices, "CPU_ELEMENTS", 12)
    found = list(row_slices(rows, width, device, elsewhere))
    assert [one.stop - one.start for one in found] == lengths
    assert [row for one in found for row in range(rows)[one]] == list(range(rows))


def test_a_cpus_slice_is_a_mebibyte():
    assert slices.CPU_ELEMENTS * torch.float32.itemsize == 2**20
