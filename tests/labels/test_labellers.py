from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from blog_site.labels.labellers import make_labeller
from blog_site.labels.lexicon import LexiconLabeller
from blog_site.labels.llm import LanguageModelLabeller


def test_the_lexicon_needs_nothing(settings) -> None:
    settings.LABELLER = "snownlp"
    assert isinstance(make_labeller(settings), LexiconLabeller)


def test_the_language_model_is_made_once_for_the_same_settings(language_model, settings) -> None:
    labeller = make_labeller(settings)
    assert isinstance(labeller, LanguageModelLabeller)
    assert make_labeller(settings) is labeller
    assert (labeller.source, labeller.model) == ("llm", "judge-1")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"LABELLER": "oracle"}, ["'oracle'", "snownlp", "openai"]),
        ({"LABELLER": "openai"}, ["LABELLER_MODEL", "LABELLER_API_KEY"]),
        ({"LABELLER": "openai", "LABELLER_MODEL": "m"}, ["LABELLER_API_KEY"]),
        ({"LABELLER": "openai", "LABELLER_API_KEY": "k"}, ["LABELLER_MODEL"]),
        ({"LABELLER": "openai", "LABELLER_BASE_URL": "http://127.0.0.1:1/v1"}, ["LABELLER_MODEL"]),
        ({"LABELLER": "openai", "LABELLER_MODEL": "m", "LABELLER_BASE_URL": "localhost:80"}, ["http://"]),
        ({"LABELLER": "openai", "LABELLER_MODEL": "m" * 101, "LABELLER_API_KEY": "k"}, ["100"]),
    ],
)
def test_wrong_settings_are_named_by_the_labeller_and_by_check(
    settings, wrong: dict[str, str], said: list[str]
) -> None:
    for name, value in (
        {"LABELLER_MODEL": "", "LABELLER_API_KEY": "", "LABELLER_BASE_URL": ""} | wrong
    ).items():
        setattr(settings, name, value)
    with pytest.raises(ImproperlyConfigured) as error:
        make_labeller(settings)
    with pytest.raises(CommandError) as check:
        call_command("check")
    for words in said:
        assert words in str(error.value)
        assert words in str(check.value)


def test_a_server_of_ones_own_needs_no_key(settings) -> None:
    settings.LABELLER, settings.LABELLER_MODEL = "openai", "m"
    settings.LABELLER_BASE_URL, settings.LABELLER_API_KEY = "http://127.0.0.1:1/v1", ""
    assert isinstance(make_labeller(settings), LanguageModelLabeller)
