"""Many trainings, several at a time, of which each is kept when it is finished: what was interrupted goes on."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from federated.experiments.noniid_training import Ground, Run, train
from federated.store import write_whole
from ml.threads import available_cpus


def read_result(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read a finished training; None when there is none, or the file is damaged or another's."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        complete = result["settings"] == json.loads(json.dumps(settings)) and (
            result["failure"] or len(result["columns"]["macro_f1"]) > 0
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(result) if complete else None


_shared: dict[str, Any] = {}  # of a worker process, filled when it starts


def _start_worker(ground: Ground, counter: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    torch.set_num_threads(1)
    _shared.update(ground=ground, counter=counter)


def _work(run: Run, path: Path) -> None:
    write_whole(path, json.dumps(train(run, _shared["ground"], _shared["counter"])).encode())


def finish_runs(runs: Sequence[Run], ground: Ground, folder: Path, console: Console) -> list[dict[str, Any]]:
    """Make the trainings that are not finished yet, one process a processor; gives all results in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {run: ground.path(run, folder) for run in runs}
    missing = [run for run, path in paths.items() if read_result(path, ground.settings(run)) is None]
    if len(missing) < len(paths):
        console.print(f"{len(paths) - len(missing)} of {len(paths)} trainings are finished already")
    if missing:
        _make({run: paths[run] for run in missing}, ground, console)
    results = [read_result(paths[run], ground.settings(run)) for run in runs]
    return [result for result in results if result is not None]


def _make(paths: Mapping[Run, Path], ground: Ground, console: Console) -> None:
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    workers = min(available_cpus(), len(paths))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("batches"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(ground, counter))
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("", total=sum(run.batches for run in paths))
            futures = [pool.submit(_work, run, path) for run, path in paths.items()]
            for left in _waiting(futures):
                told = f"{len(futures) - left} of {len(futures)} trainings"
                progress.update(bar, description=told, completed=counter.value)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


def _waiting(futures: Sequence[Future[None]]) -> Iterator[int]:
    """Give how many are left, a few times a second until there are none; raises what one of them raised."""
    left = set(futures)
    while left:
        done, left = wait(left, timeout=0.5, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        yield len(left)
