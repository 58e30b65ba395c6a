"""During a rolling upgrade the release before still writes rows into tables that this one has migrated."""

from __future__ import annotations

import pytest
from django.apps.registry import Apps
from django.db.migrations.loader import MigrationLoader
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from blog_site.training.models import ONLY, Rollout, Run

pytestmark = pytest.mark.django_db

BEFORE_THE_CLUSTER = ("training", "0004_run_training")


@pytest.fixture(scope="module")
def release_before() -> Apps:
    """The models of a release that knows nothing of clusters: what they save names the columns of that time only."""
    return MigrationLoader(None).project_state([BEFORE_THE_CLUSTER]).apps


def test_a_run_that_the_release_before_started_is_one_like_others(
    release_before: Apps, admin_client: Client
) -> None:
    before = release_before.get_model("training", "Run").objects.create(
        state="training", active_slot=ONLY, new_samples=50, samples_until=timezone.now()
    )

    run = Run.objects.get(pk=before.pk)
    assert (run.pods, run.stopped_at, run.resuming) == (None, None, False)
    assert admin_client.get(reverse("admin:training_run_change", args=[run.pk])).status_code == 200


def test_a_rollout_that_the_release_before_began_has_no_image(release_before: Apps) -> None:
    version = release_before.get_model("training", "ModelVersion").objects.create(
        digest="a" * 64, metrics={}, size_bytes=1
    )
    before = release_before.get_model("training", "Rollout").objects.create(
        model_version=version, actor="command"
    )

    rollout = Rollout.objects.get(pk=before.pk)
    assert (rollout.base_image, rollout.image, rollout.previous_image, rollout.served) == ("", "", "", False)
    assert (rollout.progress, rollout.applied_at, rollout.reverted_at) == (None, None, None)
