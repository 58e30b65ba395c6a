from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from blog_site.comments.inference import readiness
from blog_site.training.models import ModelVersion, Rollout
from blog_site.training.rollout import (
    RolloutRefused,
    advance_rollout,
    point_inference_to_champion,
    promote_model,
    rollback_model,
    undo_rollout,
)
from blog_site.training.services import advance_everything
from federated.store import StoreError
from tests.servers import find_free_port, wait_until
from tests.training.concurrency import in_threads
from tests.training.doors import SayingService, answering_model, real_service
from tests.training.rows import make_artifact, make_digest, make_version

pytestmark = pytest.mark.django_db
State = ModelVersion.State


@pytest.fixture
def versions(store) -> list[ModelVersion]:
    """Three candidates whose folders exist."""
    return [make_version(make_artifact(store.root)) for _ in range(3)]


def promote(version: ModelVersion) -> Rollout:
    return promote_model(model_version=version, actor="command")


def let_pass(rollout: Rollout, seconds: float) -> None:
    """Make the rollout older."""
    Rollout.objects.filter(pk=rollout.pk).update(created_at=timezone.now() - timedelta(seconds=seconds))
    rollout.refresh_from_db()


def states() -> dict[str, str]:
    return dict(ModelVersion.objects.values_list("digest", "state"))


def complete(rollout: Rollout, service: SayingService) -> None:
    service.serve(rollout.model_version.digest)
    assert advance_rollout(rollout).state == Rollout.State.DONE


# -- With the real service -----------------------------------------------------------------------------------------


@pytest.fixture
def port(settings) -> int:
    """Where the service will be, once a test starts it."""
    found = find_free_port()
    settings.INFERENCE_URL = f"http://127.0.0.1:{found}"
    return found


def wait_for_end(rollout: Rollout) -> None:
    wait_until(lambda: advance_rollout(rollout).state != Rollout.State.WAITING, "the rollout has ended")


def test_a_damaged_artifact_is_refused_and_the_champion_keeps_answering(
    settings, store, stored: list[str], port: int, tmp_path: Path
) -> None:
    good, damaged = make_version(stored[0]), make_version(stored[1])
    weights = store.artifact(damaged.digest) / "model.onnx"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 0xFF
    weights.write_bytes(bytes(content))

    with real_service(settings.ARTIFACT_STORE_URL, port, tmp_path / "serve.log") as url:
        wait_for_end(promote(good))
        assert answering_model(url) == good.digest

        rollout = promote(damaged)
        wait_for_end(rollout)

        assert rollout.state == Rollout.State.FAILED
        assert "model.onnx" in rollout.reason
        assert states() == {good.digest: State.CHAMPION, damaged.digest: State.REFUSED}
        assert ModelVersion.objects.get(digest=damaged.digest).state_reason == rollout.reason
        assert store.champion() == answering_model(url) == good.digest

        # Once the service has seen that it was taken back, the refusal is forgotten: the next is judged for itself.
        wait_until(lambda: readiness().error is None, "the service is content with the old model")
        next_one = make_version(stored[2])
        wait_for_end(promote(next_one))
        assert answering_model(url) == next_one.digest


def test_a_service_that_is_away_loads_the_champion_when_it_appears(
    settings, store, stored: list[str], port: int, tmp_path: Path
) -> None:
    settings.ROLLOUT_DEADLINE_SECONDS = 120
    rollout = advance_rollout(promote(make_version(stored[0])))
    assert rollout.state == Rollout.State.WAITING
    assert "没有应答" in rollout.reason

    with real_service(settings.ARTIFACT_STORE_URL, port, tmp_path / "serve.log") as url:
        wait_for_end(rollout)
        assert (rollout.state, rollout.reason) == (Rollout.State.DONE, "")
        assert answering_model(url) == stored[0]


# -- With a service that says what it is told to ------------------------------------------------------------------


def test_a_rollout_is_done_when_the_service_answers_with_the_model(store, versions, service) -> None:
    first, second, _ = versions
    complete(promote(first), service)

    rollout = promote(second)
    assert store.champion() == second.digest
    assert advance_rollout(rollout).state == Rollout.State.WAITING, "the service still serves the first"
    complete(rollout, service)

    assert rollout.ended_at is not None
    assert rollout.previous == first
    assert states()[first.digest] == State.RETIRED
    assert ModelVersion.objects.champion() == second


def test_a_service_that_is_away_undoes_nothing_however_long(settings, store, versions) -> None:
    rollout = promote(versions[0])
    let_pass(rollout, 10 * settings.ROLLOUT_DEADLINE_SECONDS)

    advance_everything()

    rollout.refresh_from_db()
    assert rollout.state == Rollout.State.WAITING
    assert "没有应答" in rollout.reason
    assert ModelVersion.objects.champion() == versions[0]


def test_a_service_that_is_still_loading_after_a_long_absence_is_given_time(
    settings, versions, service
) -> None:
    rollout = promote(versions[0])
    let_pass(rollout, 10 * settings.ROLLOUT_DEADLINE_SECONDS)

    service.say(model=None, wanted=None, error="no model has been loaded yet")
    assert advance_rollout(rollout).state == Rollout.State.WAITING
    complete(rollout, service)

    assert rollout.reason == ""


def test_a_service_that_goes_on_with_the_old_model_is_waited_for_until_the_deadline(
    settings, store, versions, service
) -> None:
    first, second, _ = versions
    complete(promote(first), service)
    rollout = promote(second)
    service.say(model=first.digest, wanted=first.digest)

    let_pass(rollout, settings.ROLLOUT_DEADLINE_SECONDS - 5)
    assert advance_rollout(rollout).state == Rollout.State.WAITING
    let_pass(rollout, settings.ROLLOUT_DEADLINE_SECONDS + 5)
    advance_rollout(rollout)

    assert rollout.state == Rollout.State.FAILED
    assert f"{settings.ROLLOUT_DEADLINE_SECONDS} 秒" in rollout.reason
    assert store.champion() == first.digest
    assert states()[second.digest] == State.REFUSED


def test_a_refused_first_model_leaves_no_champion(settings, versions, service) -> None:
    only = versions[0]
    rollout = promote(only)
    service.say(model=None, wanted=only.digest, error="model.onnx: missing")
    assert advance_rollout(rollout).state == Rollout.State.WAITING, "nobody is served worse by waiting"

    let_pass(rollout, settings.ROLLOUT_DEADLINE_SECONDS + 5)
    advance_rollout(rollout)

    assert rollout.state == Rollout.State.FAILED
    assert "model.onnx: missing" in rollout.reason
    assert ModelVersion.objects.champion() is None
    assert states()[only.digest] == State.REFUSED


def test_an_older_error_of_the_service_says_nothing_against_a_model_it_has_not_seen(
    versions, service
) -> None:
    first, second, _ = versions
    complete(promote(first), service)
    rollout = promote(second)

    service.say(model=first.digest, wanted=make_digest(), error="an artifact of the past is damaged")

    assert advance_rollout(rollout).state == Rollout.State.WAITING


def test_a_later_promotion_overtakes_one_that_still_waits(store, versions, service) -> None:
    first, second, third = versions
    complete(promote(first), service)
    overtaken = promote(second)
    rollout = promote(third)

    overtaken.refresh_from_db()
    assert overtaken.state == Rollout.State.DONE
    assert "取代" in overtaken.reason
    assert rollout.previous == second
    complete(rollout, service)
    assert states() == {
        first.digest: State.RETIRED,
        second.digest: State.RETIRED,
        third.digest: State.CHAMPION,
    }


def test_undoing_an_overtaken_rollout_changes_nothing(store, versions, service) -> None:
    first, second, third = versions
    complete(promote(first), service)
    overtaken = promote(second)  # as a worker holds it that has just heard of the refusal
    promote(third)

    undo_rollout(overtaken, "refused")

    assert overtaken.state == Rollout.State.DONE
    assert ModelVersion.objects.champion() == third
    assert states()[second.digest] == State.RETIRED
    assert store.champion() == third.digest


def test_undoing_twice_undoes_once(store, versions, service) -> None:
    first, second, third = versions
    complete(promote(first), service)
    complete(promote(second), service)
    rollout = promote(third)
    same = Rollout.objects.get(pk=rollout.pk)

    undo_rollout(rollout, "refused")
    undo_rollout(same, "refused again")

    assert (rollout.state, same.reason) == (Rollout.State.FAILED, "refused")
    assert ModelVersion.objects.champion() == second
    assert states()[first.digest] == State.RETIRED


@pytest.mark.django_db(transaction=True)
def test_of_several_promotions_at_once_exactly_one_champion_remains(store) -> None:
    versions = [make_version(make_artifact(store.root)) for _ in range(2)]

    outcomes = in_threads(lambda: promote(versions[0]), 3)

    assert sum(isinstance(outcome, Rollout) for outcome in outcomes) == 1, outcomes
    assert sum(isinstance(outcome, RolloutRefused) for outcome in outcomes) == 2, outcomes
    outcomes = in_threads(lambda: promote(versions[1]), 3)
    assert sum(isinstance(outcome, Rollout) for outcome in outcomes) == 1, outcomes
    assert ModelVersion.objects.filter(state=State.CHAMPION).count() == 1
    assert store.champion() == versions[1].digest


# -- What is refused at once -----------------------------------------------------------------------------------------


def test_promoting_the_champion_again_is_refused(versions) -> None:
    promote(versions[0])

    with pytest.raises(RolloutRefused, match="已经在用"):
        promote(versions[0])


def test_a_model_whose_files_are_gone_is_refused(versions) -> None:
    promote(versions[0])

    with pytest.raises(RolloutRefused, match="不在仓库"):
        promote(make_version(make_digest()))
    assert ModelVersion.objects.champion() == versions[0]


# -- Back --------------------------------------------------------------------------------------------------------


def test_rolling_back_returns_to_what_the_champion_replaced(store, versions, service) -> None:
    first, second, _ = versions
    complete(promote(first), service)
    complete(promote(second), service)

    rollout = rollback_model(to=None, actor="command")

    assert (rollout.model_version, rollout.previous) == (first, second)
    assert store.champion() == first.digest


def test_rolling_back_skips_a_rollout_that_was_undone(versions, service) -> None:
    first, second, third = versions
    complete(promote(first), service)
    complete(promote(second), service)
    undo_rollout(promote(third), "refused")

    assert rollback_model(to=None, actor="command").model_version == first


def test_rolling_back_to_a_named_version_goes_there(versions, service) -> None:
    for version in versions:
        complete(promote(version), service)
    versions[0].refresh_from_db()

    assert rollback_model(to=versions[0], actor="command").model_version == versions[0]


def test_without_a_champion_there_is_nothing_to_roll_back() -> None:
    with pytest.raises(RolloutRefused, match="还没有在用的模型"):
        rollback_model(to=None, actor="command")


def test_without_a_previous_model_rolling_back_is_refused(versions) -> None:
    promote(versions[0])

    with pytest.raises(RolloutRefused, match="之前没有别的模型"):
        rollback_model(to=None, actor="command")


@pytest.mark.parametrize("state", [State.CANDIDATE, State.REFUSED])
def test_a_model_that_never_served_is_no_way_back(state: str, store, versions) -> None:
    promote(versions[0])
    never = make_version(make_artifact(store.root), state=state)

    with pytest.raises(RolloutRefused, match="从未在用"):
        rollback_model(to=never, actor="command")


# -- The pointer -----------------------------------------------------------------------------------------------------


def fill_disk() -> None:
    raise StoreError("cannot write champion.json: No space left on device")


@pytest.mark.usefixtures("service")
def test_a_pointer_that_cannot_be_written_is_tried_again(store, versions, monkeypatch) -> None:
    allowed = type(store).point_to_champion
    monkeypatch.setattr(type(store), "point_to_champion", lambda *_: fill_disk())
    rollout = promote(versions[0])
    assert advance_rollout(rollout).state == Rollout.State.WAITING
    assert store.champion() is None

    monkeypatch.setattr(type(store), "point_to_champion", allowed)
    advance_rollout(rollout)

    assert store.champion() == versions[0].digest


def test_a_pointer_that_can_never_be_written_undoes_the_rollout(
    settings, store, versions, service, monkeypatch
) -> None:
    first, second, _ = versions
    complete(promote(first), service)
    monkeypatch.setattr(type(store), "point_to_champion", lambda *_: fill_disk())
    rollout = promote(second)
    let_pass(rollout, settings.ROLLOUT_DEADLINE_SECONDS + 5)

    advance_rollout(rollout)

    assert rollout.state == Rollout.State.FAILED
    assert "No space left" in rollout.reason
    assert ModelVersion.objects.champion() == first
    assert store.champion() == first.digest


def test_the_pointer_is_written_only_when_it_differs(store, versions) -> None:
    promote(versions[0])
    written = (store.root / "champion.json").stat().st_mtime_ns

    point_inference_to_champion()

    assert (store.root / "champion.json").stat().st_mtime_ns == written


def test_rolling_back_twice_goes_back_two_models_not_to_the_bad_one(store) -> None:
    oldest, middle, newest = (make_version(make_artifact(store.root)) for _ in range(3))
    for version in (oldest, middle, newest):
        promote(version)

    assert rollback_model(to=None, actor="command").model_version == middle
    assert rollback_model(to=None, actor="command").model_version == oldest
    with pytest.raises(RolloutRefused, match="没有别的模型"):
        rollback_model(to=None, actor="command")
