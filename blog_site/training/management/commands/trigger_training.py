from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from rich.console import Console

from blog_site.training import federation
from blog_site.training.models import Run
from blog_site.training.services import (
    RunActive,
    RunPlan,
    TooFewLabels,
    TrainingError,
    plan_run,
    resume_run,
    start_run,
)
from blog_site.training.terminal import follow_run, print_plan

EXIT_TOO_FEW, EXIT_ACTIVE, EXIT_FAILED, EXIT_REFUSED = 3, 4, 5, 6


def positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not a whole number") from error
    if value < 1:
        raise ArgumentTypeError(f"{value} is not at least 1")
    return value


class Command(BaseCommand):
    help = (
        "Start a federated training run now; the beat schedule `retrain` does the same by itself. "
        "Exit status: 0 done (or started, without --wait), 2 wrong usage, 3 too few new labels, 4 a run is active, "
        "5 the run failed, 6 the gate refused the model."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--sites", type=positive, help="train on at most this many sites, those with most samples"
        )
        parser.add_argument(
            "--rounds", type=positive, help="rounds of exchange (default: 160 at first, then 60)"
        )
        parser.add_argument(
            "--strategy",
            choices=federation.TRAINING_CHOICES["strategy"],
            help="fedsgd averages gradients (default); the others train at the sites and average what that moved",
        )
        parser.add_argument(
            "--local-steps", type=positive, help="batches a site trains on in a round (default: by strategy)"
        )
        parser.add_argument(
            "--local-rate", type=float, help="learning rate at the sites (default: by strategy)"
        )
        parser.add_argument(
            "--optimizer",
            choices=federation.TRAINING_CHOICES["server_optimizer"],
            help="the aggregator's (default: adamw)",
        )
        parser.add_argument(
            "--encoding",
            choices=federation.TRAINING_CHOICES["encoding"],
            help="of what sites send up (default: lossless)",
        )
        parser.add_argument(
            "--tokenizer",
            choices=list(federation.TOKENIZERS),
            help="what the model reads (default: as the champion, at first words); with another than the champion's it "
            "is trained from scratch",
        )
        parser.add_argument(
            "--min-labels", type=int, help="new samples needed (default: TRAINING_MIN_LABELS)"
        )
        parser.add_argument(
            "--resume",
            type=positive,
            metavar="RUN",
            help="go on with a run that failed or was stopped, by its number",
        )
        parser.add_argument("--wait", action="store_true", help="follow the run to its end; Ctrl-C stops it")
        parser.add_argument(
            "--dry-run", action="store_true", help="print what would be started, start nothing"
        )
        parser.add_argument("--force", action="store_true", help="train even without new samples")
        parser.add_argument("--noinput", "--no-input", action="store_true", help="do not ask")
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")

    def handle(self, **options: Any) -> None:
        console = Console(stderr=options["json"])
        if options["resume"]:
            self._go_on(self._resume(options), options, console)
            return
        plan = plan_run(sites=options["sites"], rounds=options["rounds"])
        print_plan(plan, console)
        if options["tokenizer"] and plan.champion:
            console.print(
                _("词元：%(tokenizer)s；起点模型的词元不同时从头训练，仍与它比较")
                % {"tokenizer": options["tokenizer"]}
            )
        if options["dry_run"]:
            self._answer(options, {"dry_run": True, **describe_plan(plan)})
            return
        if (
            not options["noinput"]
            and sys.stdin.isatty()
            and input(_("开始训练？[Y/n] ")).strip().lower() in ("n", "no")
        ):
            return
        try:
            run = start_run(
                trigger="command",
                sites=options["sites"],
                rounds=options["rounds"],
                min_labels=options["min_labels"],
                force=options["force"],
                training=read_training(options),
                tokenizer=options["tokenizer"],
            )
        except TooFewLabels as error:
            self._refuse(options, str(error), EXIT_TOO_FEW)
        except RunActive as error:
            self._refuse(options, str(error), EXIT_ACTIVE)
        except TrainingError as error:
            raise CommandError(str(error), returncode=2) from error
        self._go_on(run, options, console)

    def _resume(self, options: dict[str, Any]) -> Run:
        run = Run.objects.filter(pk=options["resume"]).first()
        if run is None:
            raise CommandError(
                _("没有编号为 %(number)d 的训练") % {"number": options["resume"]}, returncode=2
            )
        try:
            return resume_run(run=run)
        except RunActive as error:
            self._refuse(options, str(error), EXIT_ACTIVE)
        except TrainingError as error:
            self._refuse(options, str(error), EXIT_FAILED)

    def _go_on(self, run: Run, options: dict[str, Any], console: Console) -> None:
        """Leave a run to Celery, or follow it to its end, and exit as it ended."""
        if not options["wait"]:
            console.print(
                _("训练 %(run)s 已开始，由 Celery 接着进行；在后台的训练页可以看到进度") % {"run": run}
            )
            self._answer(options, describe_run(run))
            return
        run = follow_run(run, console)
        console.print(f"{run.get_state_display()}：{run.state_reason}")
        self._answer(options, describe_run(run))
        exit_code = {Run.State.FAILED: EXIT_FAILED, Run.State.REFUSED: EXIT_REFUSED}.get(Run.State(run.state))
        if exit_code:
            sys.exit(exit_code)

    def _answer(self, options: dict[str, Any], value: dict[str, Any]) -> None:
        if options["json"]:
            self.stdout.write(json.dumps(value, ensure_ascii=False))

    def _refuse(self, options: dict[str, Any], reason: str, exit_code: int) -> NoReturn:
        self._answer(options, {"error": reason})
        self.stderr.write(reason)
        sys.exit(exit_code)


def read_training(options: dict[str, Any]) -> dict[str, Any]:
    """What the options change of the usual training, by the names of its fields."""
    names = {
        "strategy": "strategy",
        "local_steps": "local_steps",
        "local_rate": "local_learning_rate",
        "optimizer": "server_optimizer",
        "encoding": "encoding",
    }
    return {field: options[name] for name, field in names.items() if options[name] is not None}


def describe_plan(plan: RunPlan) -> dict[str, Any]:
    return {
        "sites": [asdict(site) for site in plan.sites],
        "new_samples": plan.new_samples,
        "train_samples": plan.train_samples,
        "test_samples": plan.heldout_samples,
        "champion": plan.champion.digest if plan.champion else None,
        "rounds": plan.rounds,
        "processes": {"aggregators": 1, "trainers": len(plan.sites)},
    }


def describe_run(run: Run) -> dict[str, Any]:
    return {
        "run": run.pk,
        "state": run.state,
        "reason": run.state_reason,
        "new_samples": run.new_samples,
        "rounds": run.rounds.count(),
        "model": run.model_version.digest if run.model_version else None,
        "report": run.report,
    }
