"""Sites, runs with their rounds, and the model versions they made."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

# A nullable column that may hold only this value, under a unique constraint: at most one row has it. Partial
# unique indexes would say it better, but MySQL has none.
ONLY = 1


class Site(models.Model):
    """A participant in training that owns data; here an article category."""

    slug = models.SlugField(_("站点"), unique=True)
    name = models.CharField(_("名称"), max_length=40)
    active = models.BooleanField(_("参加训练"), default=True)

    class Meta:
        verbose_name = _("站点")
        verbose_name_plural = pgettext_lazy("list", "站点")
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name


class Kept(models.Model):
    """A row with files in the store, which are let go of some day: see pruning.py."""

    let_go_at = models.DateTimeField(
        _("清理时间"), null=True, blank=True, editable=False
    )  # not used from then on
    gone_at = models.DateTimeField(null=True, blank=True, editable=False)  # the files are removed

    class Meta:
        abstract = True


class ModelVersionQuerySet(models.QuerySet["ModelVersion"]):
    def champion(self) -> ModelVersion | None:
        return self.filter(champion_slot=ONLY).first()


class ModelVersion(Kept):
    """A registered artifact. Everything but its standing is fixed when the row is made."""

    class State(models.TextChoices):
        CANDIDATE = "candidate", _("候选")
        CHAMPION = "champion", _("在用")
        RETIRED = "retired", _("已替换")
        REFUSED = "refused", _("未通过")

    digest = models.CharField(_("摘要值"), max_length=64, unique=True)
    parent = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="children",
        verbose_name=_("上一版本"),
    )
    metrics = models.JSONField(_("指标"))  # ml.metrics.Evaluation of the held-out test samples, as JSON
    size_bytes = models.PositiveBigIntegerField(_("大小（字节）"))
    state = models.CharField(_("状态"), max_length=10, choices=State.choices, default=State.CANDIDATE)
    state_reason = models.CharField(_("说明"), max_length=500, blank=True)
    champion_slot = models.PositiveSmallIntegerField(null=True, unique=True, editable=False)
    created_at = models.DateTimeField(_("登记时间"), auto_now_add=True)

    objects = ModelVersionQuerySet.as_manager()

    class Meta:
        verbose_name = _("模型版本")
        verbose_name_plural = _("模型版本")
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.short_digest()

    def short_digest(self) -> str:
        return self.digest[:12]


class RunQuerySet(models.QuerySet["Run"]):
    def active(self) -> Run | None:
        return self.filter(active_slot=ONLY).first()

    def unstopped(self) -> RunQuerySet:
        """Those that have ended, and of whose processes nobody has yet said that they have, too."""
        return self.filter(active_slot=None, stopped_at=None)


class Run(Kept):
    """One training job from start to registered model. `active_slot` lets the database hold one run at a time."""

    class State(models.TextChoices):
        CUTTING = "cutting", _("切分数据")
        TRAINING = "training", _("训练中")
        EVALUATING = "evaluating", _("评估中")
        REGISTERED = "registered", _("已登记")
        PROMOTED = "promoted", _("已上线")
        REFUSED = "refused", _("未通过")
        FAILED = "failed", _("失败")

    ENDED = (State.PROMOTED, State.REFUSED, State.FAILED)

    state = models.CharField(_("状态"), max_length=10, choices=State.choices, default=State.CUTTING)
    state_reason = models.TextField(_("说明"), blank=True)
    active_slot = models.PositiveSmallIntegerField(null=True, unique=True, editable=False, default=ONLY)
    trigger = models.CharField(_("触发者"), max_length=60)  # "beat", "command", "admin:<username>"
    rounds_planned = models.PositiveIntegerField(
        _("计划轮数"), null=True, blank=True
    )  # None: the training's own default
    training = models.JSONField(
        _("训练方式"), default=dict, blank=True
    )  # what differs from the usual training, by the fields of ml.training_config.TrainingConfig; and its tokenizer
    new_samples = models.PositiveIntegerField(_("新样本"))
    champion = models.ForeignKey(
        ModelVersion,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        verbose_name=_("起点模型"),
    )
    model_version = models.ForeignKey(
        ModelVersion,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="runs",
        verbose_name=_("产出模型"),
    )
    samples_until = models.DateTimeField(_("样本截止时间"))  # samples changed later belong to the next run
    heldout_digest = models.CharField(_("留出样本"), max_length=64, blank=True)
    missing_sites = models.JSONField(
        _("缺席站点"), default=list, blank=True
    )  # left out: they died or were too slow
    refusals = models.JSONField(
        _("拒收记录"), default=list, blank=True
    )  # what the aggregator did not take: [federated.protocol.Refusal as an object], the latest first
    # Where it runs on a cluster: [federated.protocol.PodStatus as an object]; kept when they are gone. Nothing, or with
    # a default in the database, like `resuming`: during an upgrade the release before writes rows without these.
    pods = models.JSONField(_("容器组"), null=True, blank=True)
    report = models.JSONField(_("报告"), null=True, blank=True)  # federated.report.conclude_run
    started_at = models.DateTimeField(_("开始时间"), auto_now_add=True)
    ended_at = models.DateTimeField(_("结束时间"), null=True, blank=True)
    # Facts that whoever can reach the launcher acts on: a page's process may not, and a cluster takes its time.
    stopped_at = models.DateTimeField(_("停止时间"), null=True, blank=True, editable=False)
    resuming = models.BooleanField(_("等待继续"), default=False, db_default=False, editable=False)

    objects = RunQuerySet.as_manager()

    class Meta:
        verbose_name = _("训练")
        verbose_name_plural = pgettext_lazy("list", "训练")
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"#{self.pk}"

    def key(self) -> str:
        """The run's name outside the database: folders, processes, Jobs."""
        return f"run-{self.pk}"

    def has_ended(self) -> bool:
        return self.state in self.ENDED

    def may_resume(self) -> bool:
        """It failed or was stopped after its shards were cut, before there was a model."""
        cut = bool(self.heldout_digest) and self.let_go_at is None
        return self.state == self.State.FAILED and cut and self.model_version_id is None


class RunSite(models.Model):
    """A site's part in a run: which shard it trains on, and how it did."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="sites", verbose_name=_("训练"))
    site = models.ForeignKey(Site, on_delete=models.PROTECT, related_name="+", verbose_name=_("站点"))
    shard_digest = models.CharField(_("分片"), max_length=64)
    samples = models.PositiveIntegerField(_("训练样本"))
    validation_digest = models.CharField(_("验证分片"), max_length=64)
    validation_samples = models.PositiveIntegerField(_("验证样本"))
    class_counts = models.JSONField(_("各类样本"))  # {label: count}

    class Meta:
        verbose_name = _("参与站点")
        verbose_name_plural = _("参与站点")
        constraints = [models.UniqueConstraint(fields=["run", "site"], name="one_shard_per_run_and_site")]

    def __str__(self) -> str:
        return f"{self.run} {self.site}"


class Round(models.Model):
    """One exchange: parameters down, gradients up, average, step."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="rounds", verbose_name=_("训练"))
    number = models.PositiveIntegerField(_("轮"))
    loss = models.FloatField(_("损失"))
    accuracy = models.FloatField(_("准确率"))
    seconds = models.FloatField(_("用时（秒）"))
    bytes_up = models.PositiveBigIntegerField(_("上行字节"))
    bytes_down = models.PositiveBigIntegerField(_("下行字节"))
    validation_accuracy = models.FloatField(_("验证准确率"), null=True)  # only in rounds that measured it
    sites = models.JSONField(_("各站点"))  # {site: {"samples", "loss", "accuracy"}}

    class Meta:
        verbose_name = _("轮次")
        verbose_name_plural = _("轮次")
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="one_row_per_run_and_round")]

    def __str__(self) -> str:
        return f"{self.run} / {self.number}"


class Rollout(models.Model):
    """One change of champion: who asked, from what to what, and how it ended."""

    class State(models.TextChoices):
        WAITING = "waiting", _("等待服务切换")
        DONE = "done", _("完成")
        FAILED = "failed", _("失败，已退回")

    model_version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="rollouts", verbose_name=_("换上")
    )
    previous = models.ForeignKey(
        ModelVersion,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        verbose_name=_("换下"),
    )
    actor = models.CharField(_("操作者"), max_length=60)  # "run:<id>", "command", "admin:<username>"
    state = models.CharField(_("状态"), max_length=10, choices=State.choices, default=State.WAITING)
    reason = models.CharField(_("说明"), max_length=500, blank=True)
    created_at = models.DateTimeField(_("时间"), auto_now_add=True)
    ended_at = models.DateTimeField(_("结束时间"), null=True, blank=True)

    # On a cluster (MODEL_ROLLOUT=image). The fact that a row lacks is the next to come about; see image_rollout.py.
    # The database has the defaults too: during an upgrade the release before still writes rows without these.
    base_image = models.CharField(_("基础镜像"), max_length=400, blank=True, default="", db_default="")
    # By digest, once it is pushed.
    image = models.CharField(_("镜像"), max_length=400, blank=True, default="", db_default="")
    # What to go back to; known before anything is changed.
    previous_image = models.CharField(_("原镜像"), max_length=400, blank=True, default="", db_default="")
    building_until = models.DateTimeField(null=True, blank=True, editable=False)  # by one worker
    applied_at = models.DateTimeField(_("开始替换"), null=True, blank=True)
    # The service was seen to answer with this model.
    served = models.BooleanField(_("已应答"), default=False, db_default=False)
    reverted_at = models.DateTimeField(_("镜像退回"), null=True, blank=True)  # of one that failed
    progress = models.JSONField(_("进展"), null=True, blank=True)  # image_rollout.Progress

    class Meta:
        verbose_name = _("上线记录")
        verbose_name_plural = _("上线记录")
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.previous or '–'} → {self.model_version}"

    def short_image(self) -> str:
        """The beginning of the image's digest."""
        return self.image.rpartition(":")[2][:12]

    def renews(self) -> bool:
        """The champion stays who it is, and only its image changes: another base, or one that somebody replaced."""
        return self.previous_id == self.model_version_id
