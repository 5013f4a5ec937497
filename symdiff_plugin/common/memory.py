"""Memory: what a step takes at its peak, and what a device has free."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.autograd.profiler import profile

# Where the two versions of Linux's control groups say what a group may use, uses, and could do without.
_GROUPS_V1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_GROUPS_V2 = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def peak_memory(step: Callable[[], object], device: torch.device | str) -> int:
    """Peak of the memory of tensors on ``device`` while ``step()`` runs, in bytes above the state before.

    On CUDA it comes from the counters of PyTorch's allocator; on a CPU from the memory events of its profiler, as
    the running sum of bytes allocated minus bytes freed. What a library allocates past PyTorch is not seen.
    Tensors from before that the step frees make room on CUDA; on a CPU they do not count.

    Args:
        step: called once. A first call may fill caches and workspaces too: where these should not count, call it
            once before.
        device: ``cpu`` or a CUDA device; memory of other devices is not counted.

    Raises:
        ValueError: another kind of device, whose memory cannot be measured.
    """
    device = torch.device(device)
    gc.collect()  # or it may free tensors of others in the middle of the step
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        raise ValueError(f"the memory of device {device} cannot be measured, only that of cpu and cuda")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports its start and stop on stderr otherwise
    with profile(use_kineto=True, profile_memory=True) as recorded:
        step()
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.device_type() == torch.autograd.DeviceType.CPU:
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def free_memory(device: torch.device | str, root: Path = Path("/")) -> int:
    """Bytes that can still be allocated on ``device``.

    On CUDA, what the driver has free and what PyTorch holds in reserve. On a CPU, what Linux calls available, or
    less where a control group (a container, a batch job) is limited; elsewhere half of the machine's memory.

    Args:
        device: ``cpu`` or a CUDA device.
        root: where ``/proc`` and ``/sys`` are.

    Raises:
        ValueError: another kind of device.
    """
    device = torch.device(device)
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    if device.type != "cpu":
        raise ValueError(f"the free memory of device {device} is not known, only that of cpu and cuda")
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # macOS has no such file, and nothing else that says what is available
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min([available, *_rooms_of_groups(root)])


def _rooms_of_groups(root: Path) -> Iterator[int]:
    """Bytes left to each control group that this process is in: its own and those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, limit, used, cache = _GROUPS_V1 if controllers else _GROUPS_V2
        group = root / mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root / mount):
                break
            try:
                room = int((folder / limit).read_text()) - int((folder / used).read_text())
                state = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such group here (a container sees its own at the mount), or no limit
                continue
            yield max(0, room + int(state.get(cache, 0)))
