"""How many processors this process may use; free of torch, so that the inference service can ask as well."""

from __future__ import annotations

import math
import os
from pathlib import Path

_LIMITS = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "quota period" in microseconds, or "max period"


def available_cpus(limits: Path = _LIMITS) -> int:
    """Count the processors that the affinity mask and the container's limit leave, at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limits.read_text(encoding="ascii").split()
        return max(1, min(allowed, math.floor(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2 here, or no limit: "max"
        return max(1, allowed)


def threads_of_process() -> int:
    """Give OMP_NUM_THREADS, by which a launcher shares a machine out, or all processors there are."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else available_cpus()
