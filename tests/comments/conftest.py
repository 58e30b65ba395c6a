from __future__ import annotations

from collections.abc import Iterator

import pytest

from blog_site.comments import inference as door
from tests.comments.inference_server import InferenceServer


@pytest.fixture
def inference(settings) -> Iterator[InferenceServer]:
    """A running inference service that the settings point at."""
    server = InferenceServer()
    server.start()
    settings.INFERENCE_URL = server.url
    yield server
    door.close_clients()
    server.stop()
