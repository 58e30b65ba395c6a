"""How many processors this process may use; free of torch, so that the inference service can ask as well."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

R = TypeVar("R")

_CGROUPS = Path("/sys/fs/cgroup")


def available_cpus(cgroups: Path = _CGROUPS) -> int:
    """Count the processors that the affinity mask and the container's limit leave, at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _limit_v2(cgroups) or _limit_v1(cgroups)
    return max(1, allowed if limit is None else min(allowed, math.floor(limit)))


def _limit_v2(cgroups: Path) -> float | None:
    """The container's limit in processors as cgroup v2 has it: "quota period" in microseconds, or "max period"."""
    try:
        quota, period = (cgroups / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _limit_v1(cgroups: Path) -> float | None:
    """The same as cgroup v1 has it, where a quota of -1 is none."""
    try:
        quota, period = (
            int((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii"))
            for name in ("quota", "period")
        )
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None


def threads_of_process() -> int:
    """Give OMP_NUM_THREADS, by which a launcher shares a machine out, or all processors there are."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else available_cpus()


def run_side_by_side(jobs: Sequence[Callable[[], R]], others: Executor | None) -> list[R]:
    """Run the jobs, begun in this order, in this thread and in `others`; gives what each of them gives.

    This thread need not be woken, and where it works on, the system wakes another on another processor: of two that are
    woken at once it may put both on one, and leaves them there for longer than such jobs take.
    """
    if others is None:
        return [job() for job in jobs]
    begun = [others.submit(job) for job in jobs]
    mine = {place: jobs[place]() for place, future in enumerate(begun) if future.cancel()}
    return [mine[place] if place in mine else future.result() for place, future in enumerate(begun)]
