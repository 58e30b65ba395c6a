"""`python manage.py seed_demo`: the demo's people, articles and comments."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from blog_site.demo.seeding import (
    ADMINISTRATOR,
    DEMO_PASSWORD,
    MODERATOR,
    ContentError,
    load_content,
    seed_demo,
)


class Command(BaseCommand):
    help = (
        "Fill the blog with the demo's people, articles and comments. Repeating it adds only what is missing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--password", default=DEMO_PASSWORD, help="of every new account (default: %(default)s)"
        )
        parser.add_argument("--quiet", action="store_true", help="print nothing unless it fails")

    def handle(self, *, password: str, quiet: bool, **options: Any) -> None:
        try:
            content = load_content()
        except ContentError as error:
            raise CommandError(str(error)) from error
        console = Console(quiet=quiet)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[title]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, disable=quiet) as progress:
            task = progress.add_task(_("文章"), total=content.articles(), title="")
            counts = seed_demo(
                content=content,
                password=password,
                on_article=lambda article: progress.update(task, advance=1, title=article.title),
            )
        console.print(
            _("新建 %(categories)d 个分类、%(users)d 个账号、%(articles)d 篇文章、%(comments)d 条评论")
            % asdict(counts)
        )
        if counts.users:
            console.print(
                _("审核员 %(moderator)s，管理员 %(administrator)s；新账号的密码都是 %(password)s")
                % {
                    "moderator": MODERATOR.username,
                    "administrator": ADMINISTRATOR.username,
                    "password": password,
                }
            )
