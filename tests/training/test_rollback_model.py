from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from blog_site.training.management.commands import rollback_model as command
from blog_site.training.models import ModelVersion, Rollout
from blog_site.training.rollout import promote_model
from tests.training.doors import SayingService
from tests.training.rows import make_artifact, make_version

pytestmark = pytest.mark.django_db
OLD, MIDDLE, NEW = "ab11" + "0" * 60, "ab22" + "0" * 60, "cd33" + "0" * 60


@pytest.fixture(autouse=True)
def versions(store, service: SayingService, monkeypatch) -> list[ModelVersion]:
    """Three models that were promoted one after the other; the service answers with the oldest."""
    monkeypatch.setattr(command, "LOOK_EVERY_SECONDS", 0.01)
    made = [make_version(make_artifact(store.root, digest)) for digest in (OLD, MIDDLE, NEW)]
    for version in made:
        promote_model(model_version=version, actor="command")
    service.serve(OLD)
    return made


def champion() -> str:
    found = ModelVersion.objects.champion()
    assert found is not None
    return found.digest


def test_it_goes_back_by_one_and_waits_until_the_service_answers_with_it(service, capsys) -> None:
    service.serve(MIDDLE)

    call_command("rollback_model")

    assert champion() == MIDDLE
    assert f"在用模型：{MIDDLE}" in capsys.readouterr().out
    newest = Rollout.objects.first()
    assert newest is not None
    assert (newest.state, newest.actor) == (Rollout.State.DONE, "command")


@pytest.mark.parametrize("beginning", [OLD, "ab11", "AB11"])
def test_it_goes_to_the_model_whose_digest_begins_so(beginning: str) -> None:
    call_command("rollback_model", to=beginning)

    assert champion() == OLD


def test_an_unknown_digest_is_refused() -> None:
    with pytest.raises(CommandError, match="没有摘要值以 ffff 开头"):
        call_command("rollback_model", to="ffff")
    assert champion() == NEW


def test_a_beginning_of_several_digests_is_refused() -> None:
    with pytest.raises(CommandError, match="不止一个摘要值以 ab 开头"):
        call_command("rollback_model", to="ab")
    assert champion() == NEW


def test_the_model_in_use_is_no_target() -> None:
    with pytest.raises(CommandError, match="已经在用"):
        call_command("rollback_model", to=NEW)


def test_without_a_previous_model_it_is_refused() -> None:
    Rollout.objects.all().delete()

    with pytest.raises(CommandError, match="之前没有别的模型"):
        call_command("rollback_model")


def test_a_model_that_the_service_refuses_ends_in_an_error_and_changes_nothing(service, store) -> None:
    service.say(model=NEW, wanted=MIDDLE, error="weights.safetensors: missing")

    with pytest.raises(CommandError, match=r"weights\.safetensors: missing"):
        call_command("rollback_model")
    assert champion() == store.champion() == NEW


def test_without_a_service_it_says_that_the_model_will_be_loaded_later(service, store, capsys) -> None:
    service.stop()

    call_command("rollback_model")

    assert champion() == store.champion() == MIDDLE
    assert "启动后会自动载入" in capsys.readouterr().out
