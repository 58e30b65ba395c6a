from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from blog_site.articles.models import Article
from blog_site.articles.search import rebuild_index


class Command(BaseCommand):
    help = (
        "Index all published articles for the search anew. The blog may run meanwhile: its search goes on finding, "
        "and what is saved is indexed as always. Saving keeps the index current by itself; this is for articles that "
        "were put into the database past the blog, or deleted so."
    )

    def handle(self, **options: Any) -> None:
        console = Console(stderr=True)
        started, done = time.monotonic(), 0
        columns = (TextColumn(_("正在建立索引")), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("", total=Article.objects.filter(status=Article.Status.PUBLISHED).count())
            for done, total in rebuild_index():
                progress.update(bar, completed=done, total=total)
        self.stdout.write(
            _("已为 %(count)d 篇文章建立索引，用时 %(seconds).1f 秒")
            % {"count": done, "seconds": time.monotonic() - started}
        )
