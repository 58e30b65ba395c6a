from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from blog_site.training.pruning import plan_pruning, prune


class Command(BaseCommand):
    help = (
        "Remove what nobody needs again: the shards of old runs, the files and images of old models. The champion, the "
        "model before it and what a rollout waits for stay; so do all rows, reports and pictures. Runs every night by "
        "itself (schedule: prune). Exit status: 0 done, 1 something could not be removed and is tried again next time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--keep-runs", type=int, metavar="N", help="newest runs to keep (STORE_KEEP_RUNS)"
        )
        parser.add_argument(
            "--keep-models", type=int, metavar="N", help="newest models to keep (STORE_KEEP_MODELS)"
        )
        parser.add_argument("--dry-run", action="store_true", help="only say what would go")

    def handle(self, **options: Any) -> None:
        keep = {name: options[name] for name in ("keep_runs", "keep_models")}
        for name, number in keep.items():
            if number is not None and number < 0:
                raise CommandError(
                    _("%(name)s 不能小于 0") % {"name": f"--{name.replace('_', '-')}"}, returncode=2
                )
        if options["dry_run"]:
            plan = plan_pruning(**keep)
            for run in plan.runs:
                self.stdout.write(_("训练 %s 的分片") % run)
            for version in plan.versions:
                self.stdout.write(_("模型 %s 的文件和镜像") % version)
            if not (plan.runs or plan.versions):
                self.stdout.write(_("没有可以清理的"))
            return
        pruned = prune(**keep)
        self.stdout.write(
            _("已清理：%(runs)d 次训练（%(shards)d 个分片），%(versions)d 个模型（%(images)d 个镜像）")
            % {
                "runs": pruned.runs,
                "shards": pruned.shards,
                "versions": pruned.versions,
                "images": pruned.images,
            }
        )
        if pruned.problems:
            raise CommandError("\n".join(pruned.problems))
