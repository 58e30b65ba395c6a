from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from blog_site.training import terminal
from blog_site.training.management.commands import trigger_training
from blog_site.training.models import ModelVersion, Run
from blog_site.training.services import abort_run, advance_run, start_run
from federated.protocol import RunStatus
from tests.training.doors import ROOT, SayingService, ScriptedLauncher, make_script
from tests.training.rows import (
    import_opinions,
    make_artifact,
    make_report,
    make_run,
    make_sites,
    make_version,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch, settings) -> None:
    monkeypatch.setattr(terminal, "LOOK_EVERY_SECONDS", 0.01)
    settings.TRAINING_MIN_LABELS = 50


def trigger(*arguments: str) -> int:
    """Run the command; gives its exit status."""
    try:
        call_command("trigger_training", "--noinput", *arguments)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def ready(store, launcher: ScriptedLauncher, service: SayingService) -> str:
    """Samples, a launcher that will succeed and a service that follows; gives the candidate's digest."""
    import_opinions(90)
    digest = make_artifact(store.root)
    launcher.script = make_script({"artifact": digest, "report": make_report(digest)})
    service.serve(digest)
    return digest


def test_the_options_of_a_strategy_are_kept_with_the_run(ready: str) -> None:
    options = ["--strategy", "scaffold", "--local-steps", "3", "--local-rate", "0.2", "--encoding", "fp16"]
    assert trigger(*options, "--optimizer", "sgd") == 0
    assert Run.objects.get().training == {
        "strategy": "scaffold",
        "local_steps": 3,
        "local_learning_rate": 0.2,
        "server_optimizer": "sgd",
        "encoding": "fp16",
    }


def test_the_tokenizer_is_kept_with_the_run_and_told_to_its_processes(
    ready: str, launcher: ScriptedLauncher
) -> None:
    assert trigger("--wait", "--tokenizer", "characters", "--strategy", "fedavg") == 0
    (spec,) = launcher.started
    assert spec.tokenizer == {"kind": "characters"}
    assert spec.training == {"strategy": "fedavg"}
    assert Run.objects.get().training == {"strategy": "fedavg", "tokenizer": "characters"}


def test_without_one_the_run_keeps_the_champions_tokenizer(ready: str, launcher: ScriptedLauncher) -> None:
    assert trigger("--wait") == 0
    assert launcher.started[0].tokenizer == {}


def test_what_another_tokenizer_means_is_said_before_it_starts(ready: str, capsys) -> None:
    make_version(ready, champion=True)
    assert trigger("--dry-run", "--tokenizer", "characters") == 0
    assert "词元不同时从头训练" in capsys.readouterr().out
    assert not Run.objects.exists()


# -- Exit statuses ---------------------------------------------------------------------------------------------------


def test_started_is_0_and_leaves_the_run_to_the_worker(
    ready: str, launcher: ScriptedLauncher, capsys
) -> None:
    assert trigger() == 0

    run = Run.objects.get()
    assert (run.state, run.trigger) == (Run.State.CUTTING, "command")
    assert launcher.started == []
    assert f"#{run.pk} 已开始" in capsys.readouterr().out


def test_done_is_0_and_says_with_which_model(ready: str, capsys) -> None:
    assert trigger("--wait", "--rounds", "3", "--sites", "2") == 0

    run = Run.objects.get()
    assert (run.state, run.sites.count()) == (Run.State.PROMOTED, 2)
    assert "宏平均 F1 0.9000" in capsys.readouterr().out


def test_done_without_a_service_is_0_and_says_that_it_will_load(
    ready: str, service: SayingService, capsys
) -> None:
    service.stop()

    assert trigger("--wait") == 0

    assert Run.objects.get().state == Run.State.PROMOTED
    assert "启动后会自动载入" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rounds", "0"],
        ["--rounds", "many"],
        ["--sites", "-1"],
        ["--min-labels", "x"],
        ["--round"],
        ["extra"],
    ],
)
def test_wrong_usage_starts_nothing(ready: str, arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        trigger(*arguments)
    assert not Run.objects.exists()


def test_wrong_usage_is_2_on_the_command_line() -> None:
    """Django raises inside a process and exits at its end; only a real process shows the status."""
    command = [sys.executable, "manage.py", "trigger_training", "--rounds", "0"]

    outcome = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )

    assert outcome.returncode == 2, outcome.stderr
    assert "0 is not at least 1" in outcome.stderr


def test_too_few_new_labels_is_3(ready: str, capsys) -> None:
    assert trigger("--min-labels", "91") == 3
    assert "只有 90 条新样本，少于 91 条" in capsys.readouterr().err

    assert trigger("--min-labels", "91", "--force") == 0


def test_without_any_sample_it_is_3(capsys) -> None:
    make_sites()

    assert trigger("--force") == 3
    assert "import_samples" in capsys.readouterr().err


def test_an_active_run_is_4(ready: str, capsys) -> None:
    active = make_run()

    assert trigger("--force") == 4
    assert f"#{active.pk} 正在进行" in capsys.readouterr().err
    assert Run.objects.count() == 1


def test_a_failed_run_is_5(ready: str, launcher: ScriptedLauncher, capsys) -> None:
    launcher.script = [RunStatus("failed", "1 of 3 sites joined")]

    assert trigger("--wait") == 5
    assert "失败：1 of 3 sites joined" in capsys.readouterr().out


def test_a_refused_model_is_6(ready: str, launcher: ScriptedLauncher, store, capsys) -> None:
    champion = make_version(make_artifact(store.root), macro_f1=0.99, champion=True)
    launcher.script = make_script({"artifact": ready, "report": make_report(ready, 0.5, champion=champion)})

    assert trigger("--wait") == 6
    assert "未通过" in capsys.readouterr().out
    assert ModelVersion.objects.champion() == champion


def test_interrupting_stops_the_run_and_its_processes(
    ready: str, launcher: ScriptedLauncher, monkeypatch
) -> None:
    launcher.script = [RunStatus("training", rounds_planned=3)]
    looks = iter(range(100))

    def sleep(_seconds: float) -> None:
        if next(looks) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(terminal.time, "sleep", sleep)

    with pytest.raises(KeyboardInterrupt):
        trigger("--wait")

    run = Run.objects.get()
    assert (run.state, run.active_slot) == (Run.State.FAILED, None)
    assert launcher.stopped == [run.key()]


# -- Looking before starting -----------------------------------------------------------------------------------------


def test_a_dry_run_prints_each_site_and_starts_nothing(
    ready: str, launcher: ScriptedLauncher, store, capsys
) -> None:
    assert trigger("--dry-run", "--sites", "2") == 0

    out = capsys.readouterr().out
    assert out.count("(books)") + out.count("(film)") + out.count("(food)") == 2
    assert "1 个聚合进程和 2 个训练进程" in out
    assert "从头训练" in out
    assert not Run.objects.exists()
    assert launcher.started == []
    assert not (store.root / "shards").exists()


def test_a_dry_run_counts_what_the_run_then_takes(ready: str, capsys) -> None:
    trigger("--dry-run", "--json")
    planned = json.loads(capsys.readouterr().out)
    trigger("--wait", "--json")
    capsys.readouterr()

    run = Run.objects.get()
    taken = {part.site.slug: (part.samples, part.class_counts) for part in run.sites.all()}
    assert {site["slug"]: (site["train"], site["class_counts"]) for site in planned["sites"]} == taken
    assert planned["train_samples"] == sum(samples for samples, _counts in taken.values())
    assert planned["new_samples"] == run.new_samples == 90
    assert planned["test_samples"] > 0
    assert planned["processes"] == {"aggregators": 1, "trainers": 3}


def test_a_dry_run_is_possible_while_a_run_is_active(ready: str) -> None:
    make_run()

    assert trigger("--dry-run") == 0


@pytest.mark.parametrize(("answer", "started"), [("n", 0), ("No", 0), ("y", 1), ("", 1)])
def test_a_person_is_asked_first(ready: str, monkeypatch, answer: str, started: int) -> None:
    monkeypatch.setattr(trigger_training.sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda _question: answer)

    call_command("trigger_training")

    assert Run.objects.count() == started


class Terminal:
    def isatty(self) -> bool:
        return True


# -- For other programs ----------------------------------------------------------------------------------------------


def answer_of(capsys, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the one object on standard output."""
    status = trigger("--json", *arguments)
    value = json.loads(capsys.readouterr().out)
    assert isinstance(value, dict)
    return status, value


def test_json_of_a_started_run_names_it(ready: str, capsys) -> None:
    status, value = answer_of(capsys)

    assert (status, value["run"], value["state"]) == (0, Run.objects.get().pk, "cutting")
    assert (value["model"], value["report"], value["new_samples"]) == (None, None, 90)


def test_json_of_a_finished_run_holds_the_model_and_the_report(ready: str, capsys) -> None:
    status, value = answer_of(capsys, "--wait")

    assert (status, value["state"], value["model"], value["rounds"]) == (0, "promoted", ready, 3)
    assert value["report"]["candidate_evaluation"]["macro_f1"] == pytest.approx(0.9)


def test_json_of_a_failed_or_refused_run_is_an_object_too(ready: str, launcher, capsys, store) -> None:
    launcher.script = [RunStatus("failed", "gone")]
    assert answer_of(capsys, "--wait")[1]["reason"] == "gone"

    make_version(make_artifact(store.root), macro_f1=0.99, champion=True)
    champion = ModelVersion.objects.champion()
    launcher.script = make_script({"artifact": ready, "report": make_report(ready, 0.5, champion=champion)})
    status, value = answer_of(capsys, "--wait")
    assert (status, value["state"]) == (6, "refused")


@pytest.mark.parametrize(("arguments", "expected"), [(["--min-labels", "1000"], 3), (["--force"], 4)])
def test_json_of_a_run_that_did_not_start_says_why(
    ready: str, capsys, arguments: list[str], expected: int
) -> None:
    if expected == 4:
        make_run()

    status, value = answer_of(capsys, *arguments)

    assert status == expected
    assert set(value) == {"error"}
    assert value["error"]


def test_a_stopped_run_is_gone_on_with_by_its_number(ready: str, launcher: ScriptedLauncher, capsys) -> None:
    run = advance_run(advance_run(start_run(trigger="command", min_labels=1)))
    abort_run(run=run, reason="by mistake")

    assert trigger("--resume", str(run.pk), "--wait") == 0

    run.refresh_from_db()
    assert run.state == Run.State.PROMOTED
    assert launcher.resumed == [run.key()]
    assert trigger("--resume", str(run.pk)) == 5
    assert "不能继续" in capsys.readouterr().err


def test_an_unknown_run_cannot_be_resumed(ready: str) -> None:
    with pytest.raises(CommandError, match="9999") as error:
        trigger("--resume", "9999")
    assert error.value.returncode == 2
