from __future__ import annotations

import json

import pytest
from django.core.management import CommandError, call_command

from blog_site.training.models import ModelVersion, Run
from blog_site.training.services import advance_run, start_run
from tests.training.doors import SayingService, ScriptedLauncher, make_script
from tests.training.rows import import_opinions, make_artifact, make_report

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(store, launcher: ScriptedLauncher, service: SayingService) -> Run:
    """A run that trains."""
    import_opinions(90)
    digest = make_artifact(store.root)
    launcher.script = make_script({"artifact": digest, "report": make_report(digest)})
    return advance_run(start_run(trigger="command", min_labels=0))


def status(capsys, *arguments: str) -> dict:
    call_command("training_status", "--json", *arguments)
    return json.loads(capsys.readouterr().out)


def test_before_the_first_run_it_says_how_to_start_one(capsys) -> None:
    call_command("training_status")

    assert "trigger_training" in capsys.readouterr().out


def test_it_tells_of_the_run_under_way(run: Run, capsys) -> None:
    told = status(capsys)

    assert (told["run"]["run"], told["run"]["state"]) == (run.pk, "training")
    assert (told["champion"], told["rollout"], told["models"]) == (None, None, [])


def test_it_tells_of_a_run_by_its_number_and_of_models_and_rollout(run: Run, capsys) -> None:
    while not run.has_ended():
        run = advance_run(run)
    other = start_run(trigger="command", force=True, min_labels=0)
    champion = ModelVersion.objects.get()

    told = status(capsys, str(run.pk))

    assert told["run"]["state"] == "promoted"
    assert told["champion"] == champion.digest
    assert (told["rollout"]["to"], told["rollout"]["actor"]) == (champion.digest, f"run:{run.pk}")
    assert [model["state"] for model in told["models"]] == ["champion"]
    assert status(capsys)["run"]["run"] == other.pk
    call_command("training_status", str(run.pk))
    printed = capsys.readouterr().out
    assert champion.short_digest() in printed
    assert "已上线" in printed


def test_an_unknown_run_is_named(capsys) -> None:
    with pytest.raises(CommandError, match="12"):
        call_command("training_status", "12")


def test_abort_stops_the_run_under_way(run: Run, launcher: ScriptedLauncher, capsys) -> None:
    with pytest.raises(CommandError):
        call_command("abort_training", str(run.pk + 1))
    call_command("abort_training")

    run.refresh_from_db()
    assert (run.state, run.active_slot) == (Run.State.FAILED, None)
    assert run.key() in launcher.stopped
    with pytest.raises(CommandError):
        call_command("abort_training")
