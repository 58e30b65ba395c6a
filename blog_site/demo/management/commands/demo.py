from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from rich.console import Console
from rich.panel import Panel

from blog_site.demo.environment import write_env
from blog_site.demo.journey import take_journey, write_report
from blog_site.demo.preparation import prepare_blog, train_first_model
from blog_site.demo.services import Addresses, make_services
from blog_site.demo.supervisor import ServiceFailed, Supervisor, find_free_port
from blog_site.training.models import Run
from blog_site.training.services import abort_run

WEB_PORT, INFERENCE_PORT = 8000, 8001
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Command(BaseCommand):
    help = (
        "The whole blog on this machine: prepares the data, trains the first model, starts web, inference, worker and "
        "beat, and stops them all at Ctrl-C. Everything it writes is in var/."
    )
    requires_system_checks: list[str] = []
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="walk the whole loop once over HTTP, then stop"
        )
        parser.add_argument("--json", type=Path, metavar="FILE", help="with --once: write the report here")
        parser.add_argument("--port", type=int, default=WEB_PORT, help="of the blog; a busy one is skipped")

    def handle(self, **options: Any) -> None:
        if options["json"] and not options["once"]:
            raise CommandError("--json FILE belongs to --once")
        if options["json"]:
            forget_report(options["json"])
        began = time.monotonic()
        console = Console()
        logging.getLogger("blog_site").setLevel(
            logging.WARNING
        )  # the terminal shows progress; logs are in var/logs
        # Whatever asks for an end, the services are stopped first. SIGINT too: a script that starts this in the
        # background has it ignored.
        for number in ENDING_SIGNALS:
            signal.signal(number, interrupt)
        exit_code = 0
        with only_one_demo():
            try:
                exit_code = self.run(options, console, began)
            except KeyboardInterrupt:
                say(console, _("\n已停止。再次运行 make demo 会接着用 var/ 里的数据"))
                exit_code = 130 if options["once"] else 0  # not every stage held
            except ServiceFailed as error:
                say(console, f"[red]{error}[/red]")
                exit_code = 1
        if exit_code:
            sys.exit(exit_code)

    def run(self, options: dict[str, Any], console: Console, began: float) -> int:
        prepare_blog(console)
        addresses = choose_addresses(options["port"], console)
        write_env(settings.VAR_DIR / "env", {"INFERENCE_URL": addresses.inference})
        # Here too: the first model's rollout must not be judged by another blog's service on the usual port.
        settings.INFERENCE_URL = addresses.inference
        prepared = time.monotonic()
        first = train_first_model(console)
        trained = time.monotonic()
        if options["once"]:  # its one reader says in seconds what people say in hours
            os.environ.setdefault("LIMIT_COMMENTS", "")
        supervisor = Supervisor(make_services(addresses, settings.VAR_DIR / "run"), settings.VAR_DIR / "logs")
        try:
            supervisor.start()
            for service in supervisor.wait_until_ready():
                console.print(_("  ✓ %(name)s 就绪") % {"name": service.name})
            ready = time.monotonic()
            if options["once"]:
                seconds = {"setup": prepared - began + ready - trained, "first_training": trained - prepared}
                report = take_journey(addresses, first, seconds, console)
                write_report(report, options["json"], console)
                return 0 if report["ok"] else 1
            console.print(welcome(addresses, ready - began))
            supervisor.watch(console.print)
        finally:
            with ignore_interrupts():
                say(console, _("正在停止……"))
                stop_everything(supervisor)
        return 0


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def ignore_interrupts() -> Iterator[None]:
    """A second Ctrl-C, or a closed terminal after the first, must not leave half of the services behind."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(console: Console, words: str) -> None:
    """Say it, unless the terminal is gone: that must not keep anything from being stopped."""
    with contextlib.suppress(OSError):
        console.print(words)


@contextlib.contextmanager
def only_one_demo() -> Iterator[None]:
    settings.VAR_DIR.mkdir(parents=True, exist_ok=True)
    with (settings.VAR_DIR / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CommandError(
                _("另一个 make demo 正在使用 %(folder)s，先停下它") % {"folder": settings.VAR_DIR}
            ) from error
        yield


def forget_report(path: Path) -> None:
    """Remove an earlier report, so that what stands there in the end is of this time. Raises CommandError."""
    try:
        path.unlink(missing_ok=True)
        path.touch()
        path.unlink()
    except OSError as error:
        raise CommandError(f"--json {path}: {error.strerror}") from error


def choose_addresses(wanted: int, console: Console) -> Addresses:
    web = find_free_port(wanted)
    beside = max(INFERENCE_PORT, web + 1)
    inference = find_free_port(beside)
    for port, found in ((wanted, web), (beside, inference)):
        if port != found:
            console.print(_("端口 %(busy)d 已被占用，改用 %(port)d") % {"busy": port, "port": found})
    return Addresses(web, inference)


def stop_everything(supervisor: Supervisor) -> None:
    """Services first, so that no worker starts what is being stopped; then the processes of an active run."""
    supervisor.stop()
    run = Run.objects.active()
    if run is not None:
        abort_run(run=run, reason=_("演示停止时中断"))


def welcome(addresses: Addresses, seconds: float) -> Panel:
    text = _(
        "[bold]回声在这里：[link=%(web)s]%(web)s[/link][/bold]（%(seconds).0f 秒就绪）\n\n"
        "读者　　　xiaoman　　huisheng-demo\n"
        "作者　　　linxia　　 huisheng-demo\n"
        "审核员　　moderator　huisheng-demo　→ %(web)s/admin/comments/comment/queue/\n"
        "管理员　　admin　　　huisheng-demo　→ %(web)s/admin/training/run/\n\n"
        "可以试试：登录后写一条评论，不用刷新就能看到情感标记；在后台批量改正标注；\n"
        "在后台的训练页点“开始训练”，看损失曲线，再看推理服务换上新模型。\n"
        "接口文档 %(web)s/api/v1/docs/ · 推理服务 %(inference)s · 日志 %(logs)s\n"
        "Ctrl-C 停止一切；make clean 清空数据。"
    ) % {
        "web": addresses.web,
        "inference": addresses.inference,
        "logs": settings.VAR_DIR / "logs",
        "seconds": seconds,
    }
    return Panel(text, title="Huisheng 回声", expand=False)
