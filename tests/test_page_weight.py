"""What an article costs to load before its pictures: no more than a photograph would."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.test import Client

from tests.blog import make_article, make_comment, make_prediction, make_user
from tests.front_end import build_islands

pytestmark = [pytest.mark.django_db, pytest.mark.once]

MOST_KB = 120
COMPRESSION = 5  # the gateway's (infra/nginx/gateway.conf); what it has compressed ahead is smaller
PARTS = re.compile(r'<(?:script|link)[^>]* (?:src|href)="/static/([^"]+\.(?:js|css))"')


def compressed_kb(content: bytes) -> float:
    return len(gzip.compress(content, COMPRESSION)) / 1000


def test_an_article_with_its_styles_and_islands_is_light(client: Client) -> None:
    build_islands()
    reader = make_user("laowang")
    article = make_article(
        body_markdown="\n\n".join(f"第{n}段。" + "热豆浆配油条，烫着喝。" * 20 for n in range(40))
    )
    for n in range(30):
        make_prediction(make_comment(article, f"第{n}条评论，说的话各有不同。" * 5, author=reader))
    client.force_login(reader)

    page = client.get(article.get_absolute_url()).content
    parts = {name: Path(finders.find(name)).read_bytes() for name in PARTS.findall(page.decode())}

    assert any(name.startswith("built/comments.") and name.endswith(".js") for name in parts), parts.keys()
    weights = {name: compressed_kb(content) for name, content in {"page": page, **parts}.items()}
    assert sum(weights.values()) <= MOST_KB, weights
