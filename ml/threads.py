"""How many processors this process may use; free of torch, so that the inference service can ask as well."""

from __future__ import annotations

import math
import os
from pathlib import Path

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
