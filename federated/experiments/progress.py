"""A bar with the time left for each stage of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int], None]  # takes how many steps are done so far


@contextmanager
def show_progress(console: Console, stage: str, steps: int) -> Iterator[Advance]:
    """Show a stage's bar while the block runs."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("· left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=300) as progress:
        task = progress.add_task(stage, total=steps)
        yield lambda done: progress.update(task, completed=done)
