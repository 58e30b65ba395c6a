"""What `make e2e` promotes in a worker to see it rolled back, against the real inference service over a folder."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from blog_site.training.models import ModelVersion, Rollout
from blog_site.training.rollout import advance_rollout, promote_model
from federated.store import FolderStore
from tests.servers import find_free_port, wait_until
from tests.training.doors import answering_model, real_service

PROGRAM = Path(__file__).parents[1] / "e2e" / "inside" / "promote_broken_model.py"


def see(rollout: Rollout) -> str:
    return str(advance_rollout(rollout).state)


@pytest.mark.django_db
def test_the_broken_model_of_the_cluster_tests_is_refused_by_the_service_for_its_golden_outputs(
    settings, store: FolderStore, stored: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ModelVersion.objects.create(digest=stored[0], metrics={"macro_f1": 0.5}, size_bytes=1)
    first = promote_model(model_version=good, actor="test")
    with real_service(store.root.as_uri(), find_free_port(), tmp_path / "log") as url:
        settings.INFERENCE_URL = url
        wait_until(lambda: see(first) == Rollout.State.DONE, "the good model answers")

        call_command(
            "shell",
            "--no-imports",
            verbosity=0,
            command=PROGRAM.read_text(encoding="utf-8"),
            stdout=StringIO(),
        )
        broken = ModelVersion.objects.get(digest=capsys.readouterr().out.split()[-1])
        assert broken.state == ModelVersion.State.CHAMPION
        rollout = Rollout.objects.get(model_version=broken)
        wait_until(lambda: see(rollout) == Rollout.State.FAILED, "the broken model is refused")

        broken.refresh_from_db()
        assert broken.state == ModelVersion.State.REFUSED
        assert "golden" in broken.state_reason
        assert ModelVersion.objects.champion() == good
        assert answering_model(url) == good.digest
