"""Runs, model versions and rollouts in the admin: it shows and triggers, services decide."""

from __future__ import annotations

import logging
import mimetypes
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST
from unfold.admin import ModelAdmin

from blog_site.comments.models import Sentiment
from blog_site.training import schedule_admin as schedule_admin  # registers its pages
from blog_site.training import services
from blog_site.training.federation import MissingFile, StoreError, read_report
from blog_site.training.image_rollout import Progress
from blog_site.training.models import ModelVersion, Rollout, Run, Site
from blog_site.training.pictures import Bars, make_bars, make_curve
from blog_site.training.rollout import RolloutRefused, rollback_model

log = logging.getLogger(__name__)

REFUSALS_SHOWN = 50
REFUSED = {  # by the status that the site was answered
    0: gettext_lazy("未建立加密连接"),
    200: gettext_lazy("迟到，未计入"),
    400: gettext_lazy("不是有效请求"),
    401: gettext_lazy("令牌无效"),
    403: gettext_lazy("已排除出本次训练"),
    404: gettext_lazy("地址不存在"),
    408: gettext_lazy("传输超时"),
    409: gettext_lazy("轮次不对"),
    411: gettext_lazy("未声明长度"),
    413: gettext_lazy("消息过大"),
    422: gettext_lazy("内容不合要求"),
}
POD_PHASES = {  # of federated.protocol.PodStatus
    "pending": gettext_lazy("等待中"),
    "running": gettext_lazy("运行中"),
    "succeeded": gettext_lazy("已完成"),
    "failed": gettext_lazy("失败"),
    "missing": gettext_lazy("尚未创建"),
}
# Of federated.report, whose words are English; what each shows.
PICTURES = {
    "curves.png": gettext_lazy("每轮的损失和准确率"),
    "confusion.png": gettext_lazy("留出样本的混淆矩阵"),
    "classes.png": gettext_lazy("各类的精确率、召回率和 F1"),
    "sites.png": gettext_lazy("各站点的准确率"),
}
REPORT = "report.json"


class ReadOnly(ModelAdmin):
    """Rows that only services write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Site)
class SiteAdmin(ModelAdmin):
    list_display = ["name", "slug", "active"]
    list_editable = ["active"]
    readonly_fields = ["slug"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # a category makes its site

    def has_delete_permission(self, request: HttpRequest, obj: Site | None = None) -> bool:
        return False


@admin.register(Run)
class RunAdmin(ReadOnly):
    list_display = [
        "__str__",
        "state",
        "trigger",
        "new_samples",
        "model_version",
        "state_reason",
        "started_at",
        "ended_at",
    ]
    list_filter = ["state"]
    list_select_related = ["model_version"]
    # What the pictures and tables above them do not say already.
    fields = ["trigger", "champion", "model_version", "samples_until", "started_at", "ended_at"]
    change_list_template = "admin/training/run/change_list.html"
    change_form_template = "admin/training/run/change_form.html"

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        mine = [
            path("start/", wrap(require_POST(self.start_view)), name="training_run_start"),
            path("<int:run_id>/abort/", wrap(require_POST(self.abort_view)), name="training_run_abort"),
            path("<int:run_id>/resume/", wrap(require_POST(self.resume_view)), name="training_run_resume"),
            path("<int:run_id>/progress/", wrap(self.progress_view), name="training_run_progress"),
            path("<int:run_id>/files/<str:name>", wrap(self.file_view), name="training_run_file"),
        ]
        return mine + super().get_urls()

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        run = Run.objects.filter(pk=unquote(object_id)).first() if unquote(object_id).isdecimal() else None
        context = describe_run(run) if run else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})

    def start_view(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_superuser:
            raise PermissionDenied
        try:
            run = services.start_run(
                trigger=f"admin:{request.user.get_username()}", force=bool(request.POST.get("force"))
            )
        except services.TrainingError as error:
            self.message_user(request, str(error), messages.WARNING)
            return HttpResponseRedirect(reverse("admin:training_run_changelist"))
        return HttpResponseRedirect(reverse("admin:training_run_change", args=[run.pk]))

    def abort_view(self, request: HttpRequest, run_id: int) -> HttpResponse:
        if not request.user.is_superuser:
            raise PermissionDenied
        run = get_object_or_404(Run, pk=run_id)
        services.abort_run(run=run, reason=_("由 %(name)s 中止") % {"name": request.user.get_username()})
        return HttpResponseRedirect(reverse("admin:training_run_change", args=[run.pk]))

    def resume_view(self, request: HttpRequest, run_id: int) -> HttpResponse:
        if not request.user.is_superuser:
            raise PermissionDenied
        run = get_object_or_404(Run, pk=run_id)
        try:
            services.resume_run(run=run)
        except services.TrainingError as error:
            self.message_user(request, str(error), messages.WARNING)
        return HttpResponseRedirect(reverse("admin:training_run_change", args=[run.pk]))

    def progress_view(self, request: HttpRequest, run_id: int) -> HttpResponse:
        """The part of the run's page that changes while it trains."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        run = get_object_or_404(Run, pk=run_id)
        response = render(request, "admin/training/run/_progress.html", describe_run(run))
        response["X-Run-Ended"] = "1" if run.has_ended() else "0"
        return response

    def file_view(self, request: HttpRequest, run_id: int, name: str) -> HttpResponse:
        """A picture or the report, as saved beside the artifact."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        run = get_object_or_404(Run.objects.select_related("model_version"), pk=run_id)
        if run.model_version is None or name not in (*PICTURES, REPORT):
            raise Http404
        try:
            content = read_report(run.model_version.digest, name)
        except MissingFile as error:
            raise Http404 from error
        except StoreError as error:
            log.warning("%s of the report on run %s: %s", name, run.pk, error)
            return HttpResponse(
                _("制品仓库暂时没有应答，请稍后再试。"), status=503, content_type="text/plain; charset=utf-8"
            )
        return HttpResponse(content, content_type=mimetypes.guess_type(name)[0])


def describe_run(run: Run) -> dict[str, Any]:
    """The context of the run's page."""
    rounds = list(run.rounds.all())
    planned = run.rounds_planned or len(rounds)
    measured = [
        (row.number, row.validation_accuracy) for row in rounds if row.validation_accuracy is not None
    ]
    return {
        "run": run,
        "curves": [
            make_curve(_("损失"), [row.loss for row in rounds], planned=planned),
            make_curve(
                _("准确率"), [row.accuracy for row in rounds], planned=planned, top=1.0, measured=measured
            ),
        ],
        "training": " · ".join(
            run.training[name]
            for name in ("strategy", "server_optimizer", "encoding", "tokenizer")
            if name in run.training
        ),
        "rounds_done": len(rounds),
        "rounds_planned": planned,
        "seconds": sum(row.seconds for row in rounds),
        "bytes_up": sum(row.bytes_up for row in rounds),
        "bytes_down": sum(row.bytes_down for row in rounds),
        "site_rows": describe_sites(run),
        "rollouts": [describe_rollout(row) for row in run_rollouts(run)],
        "refusal_rows": describe_refusals(run),
        "pod_rows": describe_pods(run),
        "class_rows": describe_classes(run),
        "confusion_rows": describe_confusion(run),
        "sentiments": Sentiment.labels,
        "charts": describe_charts(run),
        "pictures": PICTURES.items(),
    }


def describe_charts(run: Run) -> list[Bars]:
    """What the candidate made of the held-out samples, in pictures; none before it was evaluated."""
    if not run.report:
        return []
    evaluation = run.report["candidate_evaluation"]
    names = dict(zip(Sentiment.values, Sentiment.labels, strict=True))
    sites = {part.site.slug: part.site.name for part in run.sites.select_related("site")}
    return [
        make_bars(
            _("各类别（测试样本）"),
            [_("精确率"), _("召回率"), "F1"],
            [
                (str(names.get(label, label)), [quality[name] for name in ("precision", "recall", "f1")])
                for label, quality in evaluation["per_class"].items()
            ],
        ),
        make_bars(
            _("各站点准确率（测试样本）"),
            [_("准确率")],
            [(sites.get(site, site), [row["accuracy"]]) for site, row in evaluation["sites"].items()],
        ),
    ]


def run_rollouts(run: Run) -> QuerySet[Rollout]:
    return Rollout.objects.filter(actor=f"run:{run.pk}").select_related("model_version", "previous")


def describe_rollout(rollout: Rollout) -> dict[str, Any]:
    """How far a rollout on a cluster is; of one that follows the pointer there is no more than its state."""
    progress = Progress.of(rollout)
    return {
        "rollout": rollout,
        "detail": progress.detail if rollout.state == Rollout.State.WAITING else "",
        "desired": progress.desired,
        "updated": progress.updated,
        "available": progress.available,
        "pods": progress.pods,
    }


def describe_sites(run: Run) -> list[dict[str, Any]]:
    newest = run.rounds.order_by("-number").first()
    measured = run.rounds.exclude(validation_accuracy=None).order_by("-number").first()
    heldout = run.report["candidate_evaluation"]["sites"] if run.report else {}
    return [
        {
            "name": part.site.name,
            "samples": part.samples,
            "class_counts": [part.class_counts.get(label, 0) for label in Sentiment.values],
            "missing": part.site.slug in run.missing_sites,
            "loss": newest.sites.get(part.site.slug, {}).get("loss") if newest else None,
            "validation": measured.sites.get(part.site.slug, {}).get("validation_accuracy")
            if measured
            else None,
            "heldout": heldout.get(part.site.slug, {}).get("accuracy"),
        }
        for part in run.sites.select_related("site")
    ]


def describe_refusals(run: Run) -> list[dict[str, Any]]:
    """What the run's aggregator did not take, the latest first."""
    names = dict(run.sites.values_list("site__slug", "site__name"))
    return [
        {
            "at": datetime.fromtimestamp(refusal["at"], UTC),
            "who": names.get(refusal["site"], refusal["site"]) or refusal["address"] or _("其他地址"),
            "round": refusal["round"] or None,
            "what": REFUSED.get(refusal["status"], _("拒收")),
            "status": refusal["status"],
            "reason": refusal["reason"],
            "count": refusal["count"],
        }
        for refusal in run.refusals[:REFUSALS_SHOWN]
    ]


def describe_pods(run: Run) -> list[dict[str, Any]]:
    """Where the run works on a cluster: each pod as it was last seen, with its last words."""
    names = dict(run.sites.values_list("site__slug", "site__name"))
    return [
        {
            "name": pod["name"],
            "who": names.get(pod["site"], pod["site"]) or _("聚合进程"),
            "phase": pod["phase"],
            "state": POD_PHASES.get(pod["phase"], pod["phase"]),
            "gone": pod.get("gone", False),
            "since": datetime.fromtimestamp(pod["since"], UTC),
            "reason": pod["reason"],
            "node": pod["node"],
            "failures": pod["failures"],
            "log": "\n".join(pod["log"]),
            "events": pod["events"],
        }
        for pod in run.pods or []
    ]


def describe_classes(run: Run) -> list[dict[str, Any]]:
    if not run.report:
        return []
    champion = (run.report["champion_evaluation"] or {}).get("per_class", {})
    per_class = run.report["candidate_evaluation"]["per_class"]
    return [
        {
            "name": sentiment.label,
            "champion_f1": champion.get(sentiment.value, {}).get("f1"),
            **per_class[sentiment.value],
        }
        for sentiment in Sentiment
    ]


def describe_confusion(run: Run) -> list[tuple[str, list[int]]]:
    if not run.report:
        return []
    confusion = run.report["candidate_evaluation"]["confusion"]
    return [(str(label), row) for label, row in zip(Sentiment.labels, confusion, strict=True)]


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnly):
    list_display = [
        "digest_beginning",
        "state",
        "macro_f1",
        "accuracy",
        "made_by",
        "image",
        "parent",
        "created_at",
        "state_reason",
    ]
    list_filter = ["state"]
    list_select_related = ["parent"]
    actions = ["put_back"]

    @admin.display(description=gettext_lazy("摘要值"), ordering="digest")
    def digest_beginning(self, version: ModelVersion) -> str:
        return version.short_digest()

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelVersion]:
        return super().get_queryset(request).prefetch_related("rollouts")

    @admin.display(description=gettext_lazy("镜像"))
    def image(self, version: ModelVersion) -> str:
        """The newest one; on another base the same model was another image."""
        return next((rollout.short_image() for rollout in version.rollouts.all() if rollout.image), "-")

    @admin.display(description=gettext_lazy("宏平均 F1"))
    def macro_f1(self, version: ModelVersion) -> str:
        return f"{version.metrics['macro_f1']:.4f}"

    @admin.display(description=gettext_lazy("准确率"))
    def accuracy(self, version: ModelVersion) -> str:
        return f"{version.metrics['accuracy']:.4f}"

    @admin.display(description=gettext_lazy("训练"))
    def made_by(self, version: ModelVersion) -> str:
        run = version.runs.first()
        return (
            format_html('<a href="{}">{}</a>', reverse("admin:training_run_change", args=[run.pk]), run)
            if run
            else "-"
        )

    @admin.action(description=gettext_lazy("回滚到所选版本"), permissions=["roll_back"])
    def put_back(self, request: HttpRequest, chosen: QuerySet[ModelVersion]) -> None:
        if chosen.count() != 1:
            self.message_user(request, _("请只选一个版本"), messages.ERROR)
            return
        try:
            rollout = rollback_model(to=chosen.get(), actor=f"admin:{request.user.get_username()}")
        except RolloutRefused as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        self.message_user(request, _("正在换上 %(model)s，进展见上线记录") % {"model": rollout.model_version})

    def has_roll_back_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)


@admin.register(Rollout)
class RolloutAdmin(ReadOnly):
    list_display = ["__str__", "state", "image_beginning", "actor", "reason", "created_at", "ended_at"]
    list_filter = ["state"]
    list_select_related = ["model_version", "previous"]
    fields = [
        "model_version",
        "previous",
        "actor",
        "standing",
        "base_image",
        "previous_image",
        "created_at",
        "applied_at",
        "ended_at",
        "reverted_at",
    ]
    readonly_fields = ["standing"]

    class Media:
        css = {"all": ["css/training.css"]}

    @admin.display(description=gettext_lazy("镜像"))
    def image_beginning(self, rollout: Rollout) -> str:
        return rollout.short_image() or "-"

    @admin.display(description=gettext_lazy("进展"))
    def standing(self, rollout: Rollout) -> str:
        return render_to_string("admin/training/_rollout.html", describe_rollout(rollout))
