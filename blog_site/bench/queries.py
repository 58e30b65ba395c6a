"""How many SQL queries pages take: `python -m blog_site.bench.queries PATH POST_PATH SESSION`, beside the data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

import django

django.setup()

from django.conf import settings  # noqa: E402 - models need the set-up
from django.core.cache import cache  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402

HOST = "127.0.0.1"


def count_queries(path: str, post_path: str, session: str) -> dict[str, int]:
    """Count those of a page that is in no cache, of the same page once more, and of a comment that is posted."""
    cache.clear()
    cold = _count(lambda: Client(headers={"host": HOST}).get(path).status_code, 200)
    warm = _count(lambda: Client(headers={"host": HOST}).get(path).status_code, 200)
    writer = Client(headers={"host": HOST})
    writer.cookies[settings.SESSION_COOKIE_NAME] = session
    post = _count(lambda: writer.post(post_path, {"text": "数一数要问几次"}).status_code, 302)
    return {"cold": cold, "warm": warm, "post": post}


def _count(ask: Callable[[], int], expected: int) -> int:
    with CaptureQueriesContext(connection) as asked:
        status = ask()
    if status != expected:
        raise SystemExit(f"answered with {status}, not {expected}: its queries say nothing")
    return len(asked)


def main(arguments: Sequence[str]) -> int:
    print(json.dumps(count_queries(*arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
