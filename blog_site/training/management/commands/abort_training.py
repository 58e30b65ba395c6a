from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from blog_site.training.management.commands.trigger_training import positive
from blog_site.training.models import Run
from blog_site.training.services import abort_run


class Command(BaseCommand):
    help = (
        "Stop the run under way and end its processes. Its journal stays: `trigger_training --resume RUN` goes on "
        "from there. Exit status: 0 stopped, 1 no such run is under way."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", nargs="?", type=positive, metavar="RUN", help="only if this is the run")

    def handle(self, **options: Any) -> None:
        run = Run.objects.active()
        if run is None or options["run"] not in (None, run.pk):
            raise CommandError(_("没有这样一次正在进行的训练"))
        run = abort_run(run=run, reason=_("由 manage.py abort_training 中止"))
        self.stdout.write(f"{run} {run.get_state_display()}: {run.state_reason}")
