"""A run as seen in a terminal: its plan as a table, its rounds as a live bar."""

from __future__ import annotations

import time

from django.utils.translation import gettext as _
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from blog_site.comments.models import Sentiment
from blog_site.training.models import Run
from blog_site.training.services import RunPlan, abort_run, advance_run

LOOK_EVERY_SECONDS = 0.3


def print_plan(plan: RunPlan, console: Console) -> None:
    table = Table(title=_("各站点的样本"))
    table.add_column(_("站点"))
    for heading in (_("训练"), _("验证"), _("测试"), *Sentiment.labels):
        table.add_column(str(heading), justify="right")
    for site in plan.sites:
        counts = [str(site.class_counts.get(label, 0)) for label in Sentiment.values]
        table.add_row(
            f"{site.name} ({site.slug})", str(site.train), str(site.validation), str(site.test), *counts
        )
    console.print(table)
    start = plan.champion.short_digest() if plan.champion else _("从头训练")
    console.print(
        _("新样本 %(new)d 条 · 起点 %(start)s · 轮数 %(rounds)s · 将启动 1 个聚合进程和 %(sites)d 个训练进程")
        % {
            "new": plan.new_samples,
            "start": start,
            "rounds": plan.rounds or _("默认"),
            "sites": len(plan.sites),
        }
    )


def follow_run(run: Run, console: Console) -> Run:
    """Move the run on until it has ended, and show it. Ctrl-C stops the run and its processes."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),  # what stands beside it fits 80 columns
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        bar = progress.add_task(_describe(run), total=run.rounds_planned, figures="")
        try:
            while not run.has_ended():
                run = advance_run(run)
                _show(run, progress, bar)
                time.sleep(LOOK_EVERY_SECONDS)
        except KeyboardInterrupt:
            abort_run(run=run, reason=_("被 Ctrl-C 中断"))
            raise
    return run


def _describe(run: Run) -> str:
    return _("训练 %(run)s %(state)s") % {"run": run, "state": run.get_state_display()}


def _show(run: Run, progress: Progress, bar: TaskID) -> None:
    rounds = list(run.rounds.order_by("-number")[:20])
    figures = ""
    if rounds:
        loss = sum(row.loss for row in rounds) / len(rounds)
        accuracy = sum(row.accuracy for row in rounds) / len(rounds)
        figures = _("损失 %(loss).3f 准确率 %(accuracy).3f") % {"loss": loss, "accuracy": accuracy}
        measured = run.rounds.exclude(validation_accuracy=None).last()
        if measured is not None:
            figures += _(" 验证 %(accuracy).3f") % {"accuracy": measured.validation_accuracy}
    if run.state_reason and not run.has_ended():
        figures = run.state_reason  # what a paused run waits for
    completed = rounds[0].number if rounds else 0
    progress.update(
        bar, description=_describe(run), total=run.rounds_planned, completed=completed, figures=figures
    )
