from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from rich.console import Console
from rich.table import Table

from blog_site.training.management.commands.rollback_model import describe_standing
from blog_site.training.management.commands.trigger_training import describe_run, positive
from blog_site.training.models import ModelVersion, Rollout, Run

LISTED = 10  # model versions


class Command(BaseCommand):
    help = (
        "Say where training stands: the run under way, or the latest, or the one given by its number; the champion, "
        "the latest rollout and the newest model versions. Changes nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", nargs="?", type=positive, metavar="RUN", help="number of a run")
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")

    def handle(self, **options: Any) -> None:
        run = find_run(options["run"])
        status = describe_status(run)
        if options["json"]:
            self.stdout.write(json.dumps(status, ensure_ascii=False))
        else:
            print_status(run, status, Console())


def find_run(number: int | None) -> Run | None:
    if number is None:
        return Run.objects.active() or Run.objects.first()
    run = Run.objects.filter(pk=number).first()
    if run is None:
        raise CommandError(_("没有编号为 %(number)d 的训练") % {"number": number}, returncode=2)
    return run


def describe_status(run: Run | None) -> dict[str, Any]:
    champion = ModelVersion.objects.champion()
    rollout = Rollout.objects.select_related("model_version", "previous").first()
    return {
        "run": describe_run(run) if run else None,
        "champion": champion.digest if champion else None,
        "rollout": rollout and describe_rollout(rollout),
        "models": [
            {"digest": version.digest, "state": version.state, "reason": version.state_reason}
            for version in ModelVersion.objects.all()[:LISTED]
        ],
    }


def describe_rollout(rollout: Rollout) -> dict[str, Any]:
    return {
        "to": rollout.model_version.digest,
        "from": rollout.previous.digest if rollout.previous else None,
        "actor": rollout.actor,
        "state": rollout.state,
        "reason": rollout.reason,
        "image": rollout.image or None,
        "progress": describe_standing(rollout) or None,
    }


def print_status(run: Run | None, status: dict[str, Any], console: Console) -> None:
    if run is None:
        console.print(_("还没有训练过；用 manage.py trigger_training 开始第一次"))
    else:
        # As plain text: a reason may hold square brackets, which rich would read as a style.
        console.print(
            _("训练 %(run)s：%(state)s，%(rounds)d/%(planned)s 轮 %(reason)s")
            % {
                "run": run,
                "state": run.get_state_display(),
                "rounds": status["run"]["rounds"],
                "planned": run.rounds_planned or "?",
                "reason": run.state_reason,
            },
            markup=False,
        )
    rollout = Rollout.objects.first()
    if rollout is not None:
        console.print(
            _("最近一次上线：%(rollout)s %(state)s %(reason)s")
            % {
                "rollout": rollout,
                "state": rollout.get_state_display(),
                "reason": rollout.reason or describe_standing(rollout),
            },
            markup=False,
        )
    table = Table(title=_("模型版本"))
    for heading in (_("摘要值"), _("状态"), "macro-F1", _("说明")):
        table.add_column(str(heading))
    for version in ModelVersion.objects.all()[:LISTED]:
        table.add_row(
            version.short_digest(),
            str(version.get_state_display()),
            f"{version.metrics['macro_f1']:.4f}",
            version.state_reason,
        )
    if table.row_count:
        console.print(table)
