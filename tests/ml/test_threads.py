from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from ml.threads import available_cpus, run_side_by_side, threads_of_process


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


def test_jobs_are_done_by_this_thread_and_another_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=30)

    def meet(number: int) -> tuple[int, int]:
        together.wait()
        return number, threading.get_ident()

    with ThreadPoolExecutor(1) as others:
        results = run_side_by_side([partial(meet, number) for number in range(2)], others)
    assert [number for number, _ in results] == [0, 1]
    assert threading.get_ident() in {thread for _, thread in results}


def test_jobs_are_done_when_no_other_thread_has_time() -> None:
    free = threading.Event()
    with ThreadPoolExecutor(1) as others:
        others.submit(free.wait, 30)
        assert run_side_by_side([partial(pow, 2, number) for number in range(4)], others) == [1, 2, 4, 8]
        free.set()


def test_a_job_that_fails_fails_the_caller_wherever_it_ran() -> None:
    with ThreadPoolExecutor(1) as others:
        for at in range(3):
            jobs = [partial(divmod, 1, int(number != at)) for number in range(3)]
            with pytest.raises(ZeroDivisionError):
                run_side_by_side(jobs, others)
