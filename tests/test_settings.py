"""Settings come from the environment alone; each test runs the settings file in an environment of its own."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import ImproperlyConfigured

pytestmark = pytest.mark.once

SETTINGS = Path(__file__).resolve().parent.parent / "blog_site" / "settings.py"


def read_settings(**environment: str) -> dict[str, Any]:
    """What blog_site/settings.py says under `environment` and nothing else."""
    with mock.patch.dict(os.environ, {"ENV_FILE": os.devnull} | environment, clear=True):
        return runpy.run_path(str(SETTINGS))


def test_without_a_server_everything_lies_in_one_folder(tmp_path: Path) -> None:
    settings = read_settings(DEBUG="1", VAR_DIR=str(tmp_path))

    assert settings["DATABASES"]["default"]["ENGINE"] == "django.db.backends.sqlite3"
    assert settings["DATABASES"]["default"]["NAME"] == str(tmp_path / "db.sqlite3")
    assert settings["CELERY_BROKER_URL"].startswith("folder:")
    assert settings["CELERY_BROKER_TRANSPORT_OPTIONS"]["data_folder_in"] == str(
        tmp_path / "queue" / "messages"
    )
    assert settings["CACHES"]["default"]["BACKEND"].endswith("LocMemCache")
    assert settings["ARTIFACT_STORE_URL"] == f"file://{tmp_path / 'store'}"
    assert tmp_path in Path(settings["STATIC_ROOT"]).parents


def test_a_relative_folder_is_the_same_from_everywhere_below() -> None:
    assert read_settings(DEBUG="1", VAR_DIR="elsewhere")["VAR_DIR"] == Path.cwd() / "elsewhere"


def test_a_message_is_read_from_the_folder_it_is_written_to() -> None:
    options = read_settings(DEBUG="1")["CELERY_BROKER_TRANSPORT_OPTIONS"]

    assert options["data_folder_in"] == options["data_folder_out"]


def test_a_missing_secret_key_says_what_to_do() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"SECRET_KEY is not set.*DEBUG=1.*make demo"):
        read_settings()


@pytest.mark.parametrize("off", ["0", "false", "False", ""])
def test_debug_is_off_unless_it_is_said_to_be_on(off: str) -> None:
    assert read_settings(SECRET_KEY="long and random", DEBUG=off)["DEBUG"] is False
    assert read_settings(SECRET_KEY="long and random")["DEBUG"] is False


def test_a_database_url_names_a_mysql_with_strict_unicode() -> None:
    settings = read_settings(DEBUG="1", DATABASE_URL="mysql://writer:p%40ss@db.example:3307/echo")
    database = settings["DATABASES"]["default"]

    assert database["ENGINE"] == "django.db.backends.mysql"
    assert (database["HOST"], str(database["PORT"]), database["NAME"]) == ("db.example", "3307", "echo")
    assert (database["USER"], database["PASSWORD"]) == ("writer", "p@ss")
    assert database["OPTIONS"]["charset"] == "utf8mb4"
    assert database["OPTIONS"]["connect_timeout"] > 0


def test_a_redis_url_moves_cache_and_sessions_there() -> None:
    settings = read_settings(DEBUG="1", REDIS_URL="redis://cache.example:6379/2")

    assert settings["CACHES"]["default"]["LOCATION"] == "redis://cache.example:6379/2"
    assert settings["SESSION_ENGINE"] == "django.contrib.sessions.backends.cached_db"


def test_a_broker_that_is_a_server_is_spoken_to_with_timeouts() -> None:
    settings = read_settings(DEBUG="1", CELERY_BROKER_URL="redis://queue.example:6379/1")

    assert settings["CELERY_BROKER_URL"] == "redis://queue.example:6379/1"
    assert settings["CELERY_BROKER_TRANSPORT_OPTIONS"]["socket_connect_timeout"] > 0
    assert "data_folder_in" not in settings["CELERY_BROKER_TRANSPORT_OPTIONS"]


def test_hosts_are_a_list_separated_by_commas() -> None:
    settings = read_settings(
        SECRET_KEY="long and random",
        ALLOWED_HOSTS="blog.example,www.blog.example",
        CSRF_TRUSTED_ORIGINS="https://blog.example",
    )

    assert settings["ALLOWED_HOSTS"] == ["blog.example", "www.blog.example"]
    assert settings["CSRF_TRUSTED_ORIGINS"] == ["https://blog.example"]


def test_tls_makes_cookies_secure_and_plain_http_redirect() -> None:
    behind_tls = read_settings(SECRET_KEY="long and random", TLS="1")
    plain = read_settings(SECRET_KEY="long and random")

    for name in (
        "SESSION_COOKIE_SECURE",
        "CSRF_COOKIE_SECURE",
        "LANGUAGE_COOKIE_SECURE",
        "SECURE_SSL_REDIRECT",
    ):
        assert (behind_tls[name], plain[name]) == (True, False)
    assert behind_tls["SECURE_HSTS_SECONDS"] > plain["SECURE_HSTS_SECONDS"] == 0
    # Without a proxy in front, anyone could send the header that claims HTTPS.
    assert plain["SECURE_PROXY_SSL_HEADER"] is None


def test_a_file_fills_in_what_the_environment_leaves_open(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("SECRET_KEY=from-the-file\nINFERENCE_URL=http://127.0.0.1:9001\n")

    settings = read_settings(ENV_FILE=str(file), INFERENCE_URL="http://model.example:8001")

    assert settings["SECRET_KEY"] == "from-the-file"
    assert settings["INFERENCE_URL"] == "http://model.example:8001"


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("INFERENCE_URL", "http://model.example:8001", "http://model.example:8001"),
        ("ARTIFACT_STORE_URL", "file:///srv/store", "file:///srv/store"),
        ("TRAINING_LAUNCHER", "kubernetes", "kubernetes"),
        ("TRAINING_MIN_LABELS", "7", 7),
        ("TIME_ZONE", "Europe/Berlin", "Europe/Berlin"),
        ("LABELLER", "openai", "openai"),
        ("LABELLER_BASE_URL", "https://llm.example/v1", "https://llm.example/v1"),
        ("LABELLER_API_KEY", "key", "key"),
        ("LABELLER_MODEL", "some-model", "some-model"),
        ("LABEL_MIN_CONFIDENCE", "0.9", 0.9),
    ],
)
def test_a_variable_of_the_loop_becomes_the_setting_of_its_name(name: str, given: str, read: object) -> None:
    assert read_settings(DEBUG="1", **{name: given})[name] == read


def test_limits_are_rates_separated_by_commas_or_none_at_all() -> None:
    limits = read_settings(DEBUG="1", LIMIT_COMMENTS="2/second, 30/hour", LIMIT_LIKES="")["ALLOWANCES"]

    assert [(rate.uses, rate.seconds) for rate in limits["comments"]] == [(2, 1), (30, 3600)]
    assert limits["likes"] == []
    assert all(limits[purpose] for purpose in limits if purpose != "likes"), "nothing is unlimited by itself"


def test_a_limit_that_is_no_rate_says_how_to_write_one() -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r"LIMIT_COMMENTS: 'often' is no rate: write it like 60/minute"
    ):
        read_settings(DEBUG="1", LIMIT_COMMENTS="often")


def read_variables() -> set[str]:
    """The environment variables that blog_site/settings.py reads."""
    called = re.findall(
        r"\b(?:env\.\w+|read_object|read_rates)\(\s*\"(\w+)\"", SETTINGS.read_text(encoding="utf-8")
    )
    return set(called)


def described_variables(readme: str) -> set[str]:
    """Those in the first column of the README's table of them."""
    text = (SETTINGS.parents[1] / readme).read_text(encoding="utf-8")
    rows = re.search(r"^\| (?:variable|变量) \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows, f"{readme} has no table of variables"
    return {name for row in rows[1].splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_every_variable_that_is_read_stands_in_the_readme_and_no_other(readme: str) -> None:
    of_the_service = {"INFERENCE_DEVICE"}  # read by ml.serve
    assert described_variables(readme) - of_the_service == read_variables()
