from __future__ import annotations

import os
from pathlib import Path

import pytest

from ml.threads import available_cpus, threads_of_process


@pytest.mark.parametrize(
    ("limits", "expected"),
    [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", None), ("nonsense", None)],
)
def test_a_container_s_limit_counts(tmp_path: Path, limits: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(limits, encoding="ascii")
    everything = len(os.sched_getaffinity(0))
    assert available_cpus(tmp_path) == (expected or everything)


@pytest.mark.parametrize(("quota", "expected"), [("150000", 1), ("50000", 1), ("-1", None)])
def test_a_container_s_limit_counts_on_older_systems_too(
    tmp_path: Path, quota: str, expected: int | None
) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n", encoding="ascii")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n", encoding="ascii")
    assert available_cpus(tmp_path) == (expected or len(os.sched_getaffinity(0)))


def test_without_a_limit_the_affinity_mask_counts(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "absent") == len(os.sched_getaffinity(0))


def test_a_launcher_s_share_goes_before_all_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert threads_of_process() == 7
    for nothing in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing)
        assert threads_of_process() == available_cpus()
