from __future__ import annotations

from collections.abc import Iterator

import pytest

from blog_site.labels import labellers
from tests.labels.language_model import LanguageModelServer


@pytest.fixture
def language_model(settings) -> Iterator[LanguageModelServer]:
    """A running language model that the settings make the labeller."""
    server = LanguageModelServer()
    server.start()
    settings.LABELLER = "openai"
    settings.LABELLER_BASE_URL = server.url
    settings.LABELLER_API_KEY = "a key"
    settings.LABELLER_MODEL = "judge-1"
    settings.LABELLER_TIMEOUT_SECONDS = 5.0
    yield server
    labellers.make_labeller(settings)._client.close()
    labellers._language_model_labeller.cache_clear()
    server.stop()
