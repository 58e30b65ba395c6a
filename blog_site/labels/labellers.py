"""What a labeller is, and which one the settings ask for."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

from django.core.exceptions import ImproperlyConfigured

LEXICON, LANGUAGE_MODEL = "snownlp", "openai"
CHOICES = (LEXICON, LANGUAGE_MODEL)
MODEL_MAX_CHARACTERS = 100  # Label.model


@dataclass(frozen=True)
class LabelProposal:
    """What a labeller says of a text."""

    sentiment: str
    confidence: float  # 0..1
    intent: str = ""
    toxicity: float | None = None  # 0..1
    reason: str = ""
    cost_tokens: int = 0


class LabellerError(Exception):
    """A labeller gave no label. `permanent`: asking the same again would fail again."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class LabellerUnavailable(LabellerError):
    """The labeller answers nobody: it is away, or set up wrongly (permanent). Every text waits."""


class RequestRefused(LabellerUnavailable):
    """The labeller refused this request without saying whether the text or the set-up is at fault."""


class UnusableAnswer(LabellerError):
    """The labeller answered about this text, but not with a label; `cost_tokens` were paid all the same."""

    def __init__(self, message: str, *, permanent: bool, cost_tokens: int = 0) -> None:
        super().__init__(message, permanent=permanent)
        self.cost_tokens = cost_tokens


class Labeller(Protocol):
    """Anything that labels texts; under one source, model and prompt a text is asked about once."""

    source: str
    model: str
    prompt_digest: str
    concurrency: int  # how many texts are worth asking about at once

    def propose(self, text: str) -> LabelProposal:
        """Label a text; raises LabellerError."""
        ...


def make_labeller(settings: Any) -> Labeller:
    """Make the labeller that LABELLER names, the same object for the same settings.

    Raises ImproperlyConfigured naming what is wrong or missing.
    """
    problem = labeller_problem(settings)
    if problem:
        raise ImproperlyConfigured(problem)
    if settings.LABELLER == LEXICON:
        return _lexicon_labeller()
    return _language_model_labeller(
        settings.LABELLER_BASE_URL,
        settings.LABELLER_API_KEY,
        settings.LABELLER_MODEL,
        settings.LABELLER_TIMEOUT_SECONDS,
    )


def labeller_problem(settings: Any) -> str:
    """Say what is wrong with the labeller's settings; empty when nothing is."""
    if settings.LABELLER not in CHOICES:
        return f"LABELLER is {settings.LABELLER!r}: set it to one of {', '.join(CHOICES)}."
    if settings.LABELLER == LEXICON:
        return ""
    return _language_model_problem(settings)


def _language_model_problem(settings: Any) -> str:
    required = ["LABELLER_MODEL"]
    if not settings.LABELLER_BASE_URL:  # a server of one's own may ask for no key
        required.append("LABELLER_API_KEY")
    missing = [name for name in required if not getattr(settings, name)]
    if missing:
        return f"LABELLER is {LANGUAGE_MODEL!r}, which needs {' and '.join(missing)} to be set."
    if settings.LABELLER_BASE_URL and not settings.LABELLER_BASE_URL.startswith(("http://", "https://")):
        return f"LABELLER_BASE_URL is {settings.LABELLER_BASE_URL!r}: it must start with http:// or https://."
    if len(settings.LABELLER_MODEL) > MODEL_MAX_CHARACTERS:
        start = settings.LABELLER_MODEL[:20]
        return f"LABELLER_MODEL is {start!r}…: at most {MODEL_MAX_CHARACTERS} characters fit."
    return ""


@functools.cache
def _lexicon_labeller() -> Labeller:
    from .lexicon import LexiconLabeller

    return LexiconLabeller()


@functools.lru_cache(maxsize=4)
def _language_model_labeller(base_url: str, api_key: str, model: str, timeout_seconds: float) -> Labeller:
    from .llm import LanguageModelLabeller

    return LanguageModelLabeller(
        base_url=base_url, api_key=api_key, model=model, timeout_seconds=timeout_seconds
    )
