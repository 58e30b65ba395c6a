"""The environment of the tests, set before Django is: none of it comes from the developer's `var/`.

pytest-django reads DJANGO_SETTINGS_MODULE from pyproject.toml before it loads this file; so it is set here, and
Django is set up here, before a conftest.py below imports models.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import django
import pytest
from django.conf import settings
from django.db.models import Model
from django.utils import translation
from pytest_django.plugin import DjangoDbBlocker, blocking_manager_key

_VAR_DIR = tempfile.mkdtemp(prefix="huisheng-test-")
os.mkdir(os.path.join(_VAR_DIR, "static"))  # STATIC_ROOT: WhiteNoise warns of one that is not there
atexit.register(shutil.rmtree, _VAR_DIR, ignore_errors=True)

# DATABASE_URL, REDIS_URL and CELERY_BROKER_URL are left as given: `python -m tests.servers` points them at servers.
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "blog_site.settings",
    "ENV_FILE": os.devnull,
    "VAR_DIR": _VAR_DIR,
    "DEBUG": "1",
    "SECRET_KEY": "signs nothing outside the tests",
    "LABELLER": "snownlp",
    "TRAINING_LAUNCHER": "local",
    "LOG_LEVEL": "INFO",
    # All tests come from one address: only those about limits have any (tests/test_allowances.py).
    **{
        f"LIMIT_{what}": ""
        for what in (
            "COMMENTS",
            "REPORTS",
            "LIKES",
            "UPLOADS",
            "WRITES",
            "API_READS",
            "API_SIGNED_IN_READS",
            "SIGN_INS",
            "SIGN_UPS",
            "PASSWORDS",
        )
    },
}
for _name in (
    "ALLOWED_HOSTS",
    "CSRF_TRUSTED_ORIGINS",
    "IMAGE_SOURCES",
    "TIME_ZONE",
    "TLS",
    "INFERENCE_URL",
    "INFERENCE_TOKEN",
    "ARTIFACT_STORE_URL",
    "MEDIA_STORE_URL",
    "ARTIFACT_STORE_TOKEN",
    "ARTIFACT_STORE_RUN_TOKEN",
    "ARTIFACT_STORE_SIGNING_KEY",
    "TRAINER_IMAGE",
    "TRAINING_NODE_SELECTOR",
    "LABELLER_BASE_URL",
    "LABELLER_API_KEY",
    "LABELLER_MODEL",
    "MODEL_ROLLOUT",
    "MODEL_IMAGE",
    "MODEL_IMAGE_PUSH",
    "INFERENCE_BASE_IMAGE",
    "INFERENCE_DEPLOYMENT",
    "INFERENCE_NAMESPACE",
    "REGISTRY_USERNAME",
    "REGISTRY_PASSWORD",
    "REGISTRY_PLAIN_HTTP",
    "ROLLOUT_DEADLINE_SECONDS",
    "KUBECONFIG",
):
    os.environ.pop(_name, None)


def _own_redis_database(url: str, worker: int) -> str:
    """The same server's, for one of several processes of tests: each empties the one that it uses."""
    parts = urlsplit(url)
    number = int(parts.path.strip("/") or 0)
    return urlunsplit(
        parts._replace(path=f"/{number + 2 * worker}")
    )  # two for each: the cache's and the broker's


if _worker := os.environ.get("PYTEST_XDIST_WORKER"):  # gw0, gw1, …
    for _name in ("REDIS_URL", "CELERY_BROKER_URL"):
        if os.environ.get(_name):
            os.environ[_name] = _own_redis_database(os.environ[_name], int(_worker.removeprefix("gw")))

django.setup()
from django_celery_beat.models import (  # noqa: E402 - models, which need Django to be set up
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
)

from blog_site.limits import forget_counts  # noqa: E402 - likewise

# A password takes a third of a second by design, here as often as somebody signs in. Processes of their own keep to it.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def pytest_configure(config: pytest.Config) -> None:
    """Let the processes that run the tests read their settings after their own environment is set, as this one did.

    pytest-django reads them before any conftest.py wherever it finds this variable, which they would inherit.
    """
    if config.getoption("numprocesses", None):
        os.environ.pop("DJANGO_SETTINGS_MODULE", None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes minutes first: begun last, it would go on alone when the other processes have nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Bring the schedule back that migrations made and a transactional test has emptied with all other tables.

    pytest-django runs such tests last; with several processes a file of them may come before another file.
    """
    yield
    if nextitem is None:  # after the last test the database is gone
        return
    marker = item.get_closest_marker("django_db")
    emptied = {"transactional_db", "live_server"} & set(getattr(item, "fixturenames", ()))
    if emptied or (marker and marker.kwargs.get("transaction")):
        with item.config.stash[blocking_manager_key].unblock():
            _restore_schedule()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Keep what migrations wrote into the schedule, as `_restore_schedule` wants it."""
    with django_db_blocker.unblock():
        for model in (CrontabSchedule, IntervalSchedule, PeriodicTask):
            _schedule.extend(model.objects.all())


_schedule: list[Model] = []


def _restore_schedule() -> None:
    if not PeriodicTask.objects.exists():
        for row in _schedule:
            row.save_base(raw=True, force_insert=True)


@pytest.fixture(autouse=True)
def _nobody_has_done_anything_yet() -> None:
    """Forget what earlier tests have used up; where counts lie in Redis, tests of limits empty the cache too."""
    forget_counts()


@pytest.fixture(autouse=True)
def _language_of_the_command_line() -> Iterator[None]:
    """Forget the language that a page of an earlier test was read in: a thread keeps it until its next request."""
    translation.deactivate()
    yield
    translation.deactivate()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Keep the SQLite test database in a file: one in memory is shared between threads under table locks that
    fail at once, where a file's writers wait for each other as they do outside the tests."""
    database = settings.DATABASES["default"]
    if database["ENGINE"] == "django.db.backends.sqlite3":
        database.setdefault("TEST", {})["NAME"] = os.path.join(_VAR_DIR, "test.sqlite3")
