from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from blog_site.training.image_rollout import Progress
from blog_site.training.models import ModelVersion, Rollout
from blog_site.training.rollout import RolloutRefused, advance_rollout, rollback_model

LOOK_EVERY_SECONDS = 0.3


class Command(BaseCommand):
    help = "Put the previous model back into service, or the one that --to names, and wait until it answers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--to", metavar="DIGEST", help="digest of the model version, or its beginning")

    def handle(self, **options: Any) -> None:
        target = find_version(options["to"]) if options["to"] else None
        try:
            rollout = rollback_model(to=target, actor="command")
        except RolloutRefused as error:
            raise CommandError(str(error)) from error
        said = ""
        while rollout.state == Rollout.State.WAITING and not rollout.reason:
            rollout = advance_rollout(rollout)
            standing = describe_standing(rollout)
            if standing and standing != said:
                self.stdout.write(standing)
                said = standing
            time.sleep(LOOK_EVERY_SECONDS)
        if rollout.state == Rollout.State.FAILED:
            raise CommandError(rollout.reason)
        self.stdout.write(
            _("在用模型：%(digest)s %(reason)s")
            % {"digest": rollout.model_version.digest, "reason": rollout.reason}
        )


def describe_standing(rollout: Rollout) -> str:
    """How far a rollout on a cluster is; empty for one that is over at once."""
    if rollout.state != Rollout.State.WAITING:
        return ""
    progress = Progress.of(rollout)
    return f"{progress.detail} {progress.updated}/{progress.desired}" if progress.desired else progress.detail


def find_version(prefix: str) -> ModelVersion:
    found = list(ModelVersion.objects.filter(digest__startswith=prefix.lower())[:2])
    if len(found) != 1:
        problem = _("没有") if not found else _("不止一个")
        raise CommandError(
            _("%(problem)s摘要值以 %(prefix)s 开头的模型版本") % {"problem": problem, "prefix": prefix}
        )
    return found[0]
