"""The door to the API server, where what is behind it misbehaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from federated.launch import LauncherError
from federated.launch.kubernetes.api import connect
from tests.cluster.no_tls import broken_handshakes


def test_a_handshake_that_breaks_off_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broken_handshakes(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

        with pytest.raises(LauncherError, match="cannot list Pods .*SSL") as refused:
            connect("training").list("Pod")

    assert not refused.value.permanent
