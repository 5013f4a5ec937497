"""Peaks of known patterns of allocations, and what is free under made-up limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from symdiff_plugin.common.memory import free_memory, peak_memory

MIB = 2**20
GIB = 2**30
devices = pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)


@devices
@pytest.mark.parametrize(
    ("sizes", "freed_after", "peak"),
    [
        ((4, 8, 12), None, 24),  # the control: what a sum of allocations alone would give for the next two
        ((4, 8, 12), 1, 20),  # the first goes before the third comes
        ((8, 4, 6), 1, 12),  # the peak is neither the sum, nor the largest, nor what is left
        ((12, 4, 2), 0, 12),  # at the beginning
    ],
)
def test_the_peak_of_three_tensors(sizes, freed_after, peak, device):
    before = torch.zeros(32 * MIB, dtype=torch.uint8, device=device)

    def step() -> None:
        kept = []
        for i, size in enumerate(sizes):
            kept.append(torch.empty(size * MIB, dtype=torch.uint8, device=device))
            if i == freed_after:
                del kept[0]
        before.add_(1)  # in place: allocates nothing

    found = peak_memory(step, device)
    assert peak * MIB <= found < (peak + 0.1) * MIB


def test_what_the_step_returns_and_prints_is_left_alone(capfd):
    kept = []
    assert peak_memory(lambda: kept.append(torch.empty(MIB)), "cpu") == 4 * MIB
    assert kept[0].numel() == MIB
    assert peak_memory(lambda: None, torch.device("cpu")) == 0
    assert capfd.readouterr() == ("", "")  # the profiler is quiet


def test_other_devices_are_refused():
    with pytest.raises(ValueError, match="memory of device meta cannot be measured"):
        peak_memory(lambda: None, "meta")
    with pytest.raises(ValueError, match="free memory of device meta is not known"):
        free_memory("meta")


def machine(root: Path, groups: str = "0::/\n", **files: dict[str, object]) -> Path:
    """A ``/proc`` and ``/sys`` with 8 GiB available, and the files of control groups by folder."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for folder, contents in files.items():
        path = root / "sys/fs/cgroup" / folder
        path.mkdir(parents=True, exist_ok=True)
        for name, value in contents.items():
            (path / name).write_text(f"{value}\n")
    return root


def v1(limit: int, used: int, cache: int = 0) -> dict[str, object]:
    return {
        "memory.limit_in_bytes": limit,
        "memory.usage_in_bytes": used,
        "memory.stat": f"cache 5\ntotal_inactive_file {cache}",
    }


def v2(limit: int | str, used: int, cache: int = 0) -> dict[str, object]:
    return {"memory.max": limit, "memory.current": used, "memory.stat": f"anon 5\ninactive_file {cache}"}


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("0::/\n", {}, 8 * GIB),
        ("0::/job/step\n", {"job": v2(3 * GIB, GIB), "job/step": v2("max", GIB)}, 2 * GIB),  # the limit is around it
        ("0::/job\n", {"job": v2(3 * GIB, 2 * GIB, cache=GIB // 2)}, 1.5 * GIB),  # files in memory can be dropped
        ("0::/job\n", {"job": v2(90 * GIB, GIB)}, 8 * GIB),  # the machine has less than the group may use
        ("0::/job\n", {"job": v2(GIB, GIB + 4096)}, 0),
        ("0::/host/path\n", {"": v2(4 * GIB, GIB)}, 3 * GIB),  # in a container
        ("4:cpu,memory:/job\n0::/\n", {"memory/job": v1(5 * GIB, 2 * GIB, GIB)}, 4 * GIB),
        ("4:memory:/job\n0::/\n", {"memory": v1(2**63 - 4096, GIB)}, 8 * GIB),  # how version 1 says no limit
        ("4:cpuset:/job\n", {"memory/job": v1(GIB, 0), "job": v2(GIB, 0)}, 8 * GIB),  # of another controller
    ],
)
def test_the_tightest_limit_counts(groups, files, free, tmp_path):
    assert free_memory("cpu", machine(tmp_path, groups, **files)) == free


def test_without_proc_half_of_the_machine(tmp_path):
    assert free_memory("cpu", tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux")
def test_of_this_machine():
    assert 0 < free_memory("cpu") < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
