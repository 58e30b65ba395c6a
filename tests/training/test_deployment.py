"""The door to the inference Deployment, where the API server misbehaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from blog_site.training.deployment import ClusterError, InferenceDeployment
from tests.cluster.no_tls import broken_handshakes


def test_a_handshake_that_breaks_off_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broken_handshakes(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

        with pytest.raises(ClusterError, match="does not answer about huisheng/inference: .*SSL") as refused:
            InferenceDeployment("huisheng", "inference").read()

    assert not refused.value.permanent
