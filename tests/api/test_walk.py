from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from blog_site.api.models import Token
from blog_site.articles.models import Article
from blog_site.comments.models import Comment
from tests.comments.rows import make_article, make_category, make_user

ROOT = Path(__file__).resolve().parents[2]
WALK = re.compile(r"^```sh walk\n(.*?)^```", re.MULTILINE | re.DOTALL)


def read_walk(readme: str) -> str:
    (walk,) = WALK.findall((ROOT / readme).read_text())
    return walk


def without_comments(script: str) -> list[str]:
    return [line for line in script.splitlines() if not line.startswith("#")]


def test_both_readmes_walk_the_same_way() -> None:
    assert without_comments(read_walk("README.md")) == without_comments(read_walk("README.zh-CN.md"))


@pytest.mark.django_db(transaction=True)
def test_the_walk_of_the_readme_signs_in_writes_publishes_comments_and_signs_out(live_server) -> None:
    make_user("linxia", password="huisheng-demo")
    make_article(title="麻婆豆腐", category=make_category("food"))
    walked = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", read_walk("README.md")],
        env={**os.environ, "BLOG": live_server.url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert walked.returncode == 0, walked.stdout + walked.stderr
    assert walked.stdout.count('"title":"麻婆豆腐"') == 2  # listed, and found
    article = Article.objects.get(title="Walk")
    assert article.is_public()
    assert article.author.username == "linxia"
    assert Comment.objects.get(article=article).text == "味道真好"
    assert not Token.objects.exists()
