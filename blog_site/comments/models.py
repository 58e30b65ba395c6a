"""Comments, what model versions and readers said of them, and what moderators decided."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.db import models
from django.db.models import F, FilteredRelation, Prefetch, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from blog_site.articles.models import Article
from blog_site.articles.pages import comment_address

from .deletion import bury_comments, keep_thread
from .text import GUEST_NAME_MAX


class Sentiment(models.TextChoices):
    """The label set, in the order of the model's classes (`ml.label_set.LABELS`; a test holds them equal)."""

    NEGATIVE = "negative", _("负面")
    NEUTRAL = "neutral", _("中性")
    POSITIVE = "positive", _("正面")


def is_moderator(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether somebody may read what waits for a decision; asked of the database only for people on the staff."""
    return isinstance(user, AbstractUser) and user.is_staff and user.has_perm("comments.view_comment")


class CommentQuerySet(models.QuerySet["Comment"]):
    def visible(self) -> CommentQuerySet:
        return self.filter(status=Comment.Status.VISIBLE)

    def seen_by(
        self, user: AbstractBaseUser | AnonymousUser, *, guests_own: Collection[int] = ()
    ) -> CommentQuerySet:
        """What somebody may read: what is shown, their own, what stands under their own articles; moderators all.

        `guests_own` are the ids of comments that this browser has written without an account.
        """
        shown = Q(status=Comment.Status.VISIBLE, article__in=Article.objects.published())
        left = Q(pk__in=guests_own, author=None) & ~Q(status=Comment.Status.DELETED)
        if not user.is_authenticated:
            return self.filter(shown | left)
        assert isinstance(user, AbstractUser)
        if is_moderator(user):
            return self.exclude(status=Comment.Status.DELETED)
        under_own = Q(status=Comment.Status.VISIBLE, article__author=user)
        return self.filter(shown | Q(author=user) | under_own | left)

    def judged(self) -> CommentQuerySet:
        """Comments that models and labellers are asked about: what waits for moderators too, who need to know."""
        return self.exclude(status__in=[Comment.Status.SPAM, Comment.Status.DELETED])

    def unscored(self) -> CommentQuerySet:
        """Comments whose present text no model version has seen: the outbox of `score_comment`."""
        # As a join: of a condition MariaDB would make a table of all predictions there are, at every sweep.
        said = FilteredRelation("predictions", condition=Q(predictions__text_digest=F("text_digest")))
        return self.judged().alias(said=said).filter(said=None)

    def older_than(self, seconds: float) -> CommentQuerySet:
        return self.filter(updated_at__lte=timezone.now() - timedelta(seconds=seconds))

    def with_predictions(self) -> CommentQuerySet:
        return self.select_related("author").prefetch_related(
            Prefetch("predictions", Prediction.objects.order_by("-id"), to_attr="predictions_newest_first")
        )


class Comment(models.Model):
    """What somebody said under an article, or in reply to another comment."""

    class Status(models.TextChoices):
        VISIBLE = "visible", _("公开")
        PENDING = "pending", _("待审核")
        HIDDEN = "hidden", _("隐藏")
        SPAM = "spam", _("垃圾评论")
        DELETED = "deleted", _("已删除")  # a tombstone: it stands only because it was answered

    article = models.ForeignKey(
        Article, on_delete=models.CASCADE, related_name="comments", verbose_name=pgettext_lazy("one", "文章")
    )
    parent = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=keep_thread,
        related_name="replies",
        verbose_name=_("回复的评论"),
    )
    depth = models.PositiveSmallIntegerField(
        _("层级"), default=0, db_default=0, editable=False
    )  # 0: under the article itself
    # New columns have defaults in the database too: a release before this one still inserts rows during a rollout.
    # Null for a guest, who has a `guest_name`, and for a tombstone, which has neither.
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=bury_comments,
        related_name="comments",
        verbose_name=_("作者"),
    )
    guest_name = models.CharField(
        _("访客称呼"), max_length=GUEST_NAME_MAX, blank=True, default="", db_default=""
    )
    via_api = models.BooleanField(
        _("经接口发表"), default=False, db_default=False, editable=False
    )  # by a program with a token
    text = models.TextField(_("内容"))
    text_digest = models.CharField(_("内容摘要值"), max_length=64, editable=False)  # ml.text.text_digest
    status = models.CharField(_("状态"), max_length=10, choices=Status.choices, default=Status.VISIBLE)
    created_at = models.DateTimeField(_("发表时间"), default=timezone.now)
    updated_at = models.DateTimeField(_("更新时间"), auto_now=True)
    # When what readers see of it last changed: its text, status, badge or counts. `changes` pages by it.
    changed_at = models.DateTimeField(default=timezone.now, db_default=Now(), editable=False)
    edited_at = models.DateTimeField(_("编辑时间"), null=True, blank=True, editable=False)
    like_count = models.PositiveIntegerField(_("赞"), default=0, db_default=0, editable=False)
    reply_count = models.PositiveIntegerField(
        _("回复"), default=0, db_default=0, editable=False
    )  # visible ones
    # Replies that have a place on the page: visible ones, and placeholders above others that are.
    shown_replies = models.PositiveIntegerField(_("显示的回复"), default=0, db_default=0, editable=False)
    report_count = models.PositiveIntegerField(
        _("举报"), default=0, db_default=0, editable=False
    )  # open ones
    constructiveness = models.FloatField(_("建设性"), default=0.0, db_default=0.0, editable=False)

    objects = CommentQuerySet.as_manager()

    # What a tombstone has instead of what it had.
    TOMBSTONE: ClassVar[dict[str, Any]] = {
        "status": Status.DELETED,
        "author": None,
        "guest_name": "",
        "text": "",
        "text_digest": "",
        "edited_at": None,
        "like_count": 0,
        "report_count": 0,
        "constructiveness": 0.0,
    }

    class Meta:
        verbose_name = pgettext_lazy("one", "评论")
        verbose_name_plural = _("评论")
        ordering = ["created_at", "id"]
        indexes = [
            models.Index(fields=["article", "status", "created_at"]),
            # A thread's pages: all that answers one comment, or the article, in either order.
            models.Index(fields=["article", "parent", "created_at", "id"], name="comments_thread_by_time"),
            models.Index(
                fields=["article", "parent", "constructiveness", "id"], name="comments_thread_by_worth"
            ),
            models.Index(fields=["article", "changed_at"], name="comments_by_change"),
            models.Index(fields=["status", "created_at"], name="comments_by_status"),
            models.Index(fields=["report_count"], name="comments_by_reports"),
        ]

    def __str__(self) -> str:
        return self.text[:40]

    def get_absolute_url(self) -> str:
        return comment_address(self.article, self.pk)

    @property
    def byline(self) -> str:
        """The name under which it stands."""
        return str(self.author) if self.author is not None else self.guest_name

    def is_visible(self) -> bool:
        return self.status == self.Status.VISIBLE

    def is_pending(self) -> bool:
        return self.status == self.Status.PENDING

    def may_be_edited_by(self, user: AbstractBaseUser | AnonymousUser) -> bool:
        """Whether somebody may still change the text: its author, for a while, where moderators have not refused it."""
        deadline = self.created_at + timedelta(minutes=settings.COMMENT_EDIT_MINUTES)
        open_to_change = self.status in (self.Status.VISIBLE, self.Status.PENDING)
        return (
            user.pk is not None and self.author_id == user.pk and open_to_change and timezone.now() < deadline
        )

    def current_prediction(self) -> Prediction | None:
        """The newest prediction of the present text, or None while it waits."""
        fetched = getattr(self, "predictions_newest_first", None)
        predictions = self.predictions.order_by("-id") if fetched is None else fetched
        return next((p for p in predictions if p.text_digest == self.text_digest), None)


class Prediction(models.Model):
    """What one model version said of one comment text; a retry finds the row and changes nothing."""

    comment = models.ForeignKey(
        Comment,
        on_delete=models.CASCADE,
        related_name="predictions",
        verbose_name=pgettext_lazy("one", "评论"),
    )
    text_digest = models.CharField(_("内容摘要值"), max_length=64)
    model_digest = models.CharField(_("模型"), max_length=64)
    label = models.CharField(_("情感"), max_length=10, choices=Sentiment.choices)
    score = models.FloatField(_("把握"))  # probability of the label, 0..1
    probabilities = models.JSONField(_("各类概率"))  # {label: probability}
    latency_ms = models.FloatField(_("耗时（毫秒）"))  # of the HTTP call that brought it
    created_at = models.DateTimeField(_("时间"), auto_now_add=True)

    class Meta:
        verbose_name = _("预测")
        verbose_name_plural = pgettext_lazy("list", "预测")
        constraints = [
            models.UniqueConstraint(
                fields=["comment", "text_digest", "model_digest"], name="one_prediction_per_text_and_model"
            )
        ]
        indexes = [models.Index(fields=["score"], name="predictions_by_score")]  # the least certain first

    def __str__(self) -> str:
        return f"{self.label} {self.score:.2f}"


class Removal(models.Model):
    """That a comment which could be seen no longer can; told for a day to pages that show it."""

    article = models.ForeignKey(
        Article, on_delete=models.CASCADE, related_name="+", verbose_name=pgettext_lazy("one", "文章")
    )
    comment_id = models.BigIntegerField(pgettext_lazy("one", "评论"))  # a plain value: the row may be gone
    at = models.DateTimeField(_("时间"), default=timezone.now)

    class Meta:
        verbose_name = _("撤下的评论")
        verbose_name_plural = _("撤下的评论")
        indexes = [models.Index(fields=["article", "at"], name="comments_removed")]

    def __str__(self) -> str:
        return str(self.comment_id)


class Like(models.Model):
    comment = models.ForeignKey(
        Comment, on_delete=models.CASCADE, related_name="likes", verbose_name=pgettext_lazy("one", "评论")
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", verbose_name=_("用户")
    )
    created_at = models.DateTimeField(_("时间"), auto_now_add=True)

    class Meta:
        verbose_name = _("赞")
        verbose_name_plural = _("赞")
        constraints = [models.UniqueConstraint(fields=["comment", "user"], name="one_like_per_reader")]

    def __str__(self) -> str:
        return f"{self.user_id} → {self.comment_id}"


class Report(models.Model):
    """A reader's word that a comment should not stand; settled by the next decision about the comment."""

    class Reason(models.TextChoices):
        SPAM = "spam", _("广告或灌水")
        ABUSE = "abuse", _("人身攻击或辱骂")
        FALSE = "false", _("不实信息")
        OFF_TOPIC = "off_topic", _("与文章无关")
        OTHER = "other", _("其他")

    comment = models.ForeignKey(
        Comment, on_delete=models.CASCADE, related_name="reports", verbose_name=pgettext_lazy("one", "评论")
    )
    reporter = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", verbose_name=_("举报人")
    )
    reason = models.CharField(_("理由"), max_length=10, choices=Reason.choices)
    note = models.CharField(_("说明"), max_length=300, blank=True)
    created_at = models.DateTimeField(_("时间"), auto_now_add=True)
    settled_at = models.DateTimeField(_("处理时间"), null=True, blank=True)

    class Meta:
        verbose_name = pgettext_lazy("one", "举报")
        verbose_name_plural = _("举报")
        constraints = [models.UniqueConstraint(fields=["comment", "reporter"], name="one_report_per_reader")]

    def __str__(self) -> str:
        return self.get_reason_display()


class Decision(models.Model):
    """That a comment's status or label was changed, or confirmed: who, when, from what, to what and why."""

    class Action(models.TextChoices):
        HOLD = "hold", _("留待审核")  # by rules
        APPROVE = "approve", _("通过")
        HIDE = "hide", _("隐藏")
        MARK_SPAM = "mark_spam", _("标为垃圾")
        RESTORE = "restore", _("恢复")
        DELETE = "delete", _("删除")
        RELABEL = "relabel", _("改标注")

    comment = models.ForeignKey(
        Comment,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="decisions",
        verbose_name=pgettext_lazy("one", "评论"),
    )
    excerpt = models.CharField(_("内容摘录"), max_length=100, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        verbose_name=_("决定者"),
    )  # null: a rule, or somebody whose account is gone
    at = models.DateTimeField(_("时间"), default=timezone.now)
    from_status = models.CharField(_("原状态"), max_length=10, choices=Comment.Status.choices, blank=True)
    to_status = models.CharField(_("新状态"), max_length=10, choices=Comment.Status.choices)
    # Of a label that was corrected; the status stays.
    from_label = models.CharField(
        _("原标注"), max_length=10, choices=Sentiment.choices, blank=True, default="", db_default=""
    )
    to_label = models.CharField(
        _("新标注"), max_length=10, choices=Sentiment.choices, blank=True, default="", db_default=""
    )
    action = models.CharField(_("决定"), max_length=10, choices=Action.choices)
    reason = models.CharField(_("理由"), max_length=300, blank=True)

    class Meta:
        verbose_name = _("审核记录")
        verbose_name_plural = _("审核记录")
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.get_action_display()}：{self.excerpt}"

    # What a rule writes as its reason (`rules.Held.reason`), in words.
    RULES: ClassVar[dict[str, Any]] = {
        "first_comments": _("新账号的前几条评论"),
        "link": _("带有链接"),
        "guest": _("访客的评论"),
        "word": _("含有屏蔽词"),
        "spam_word": _("含有屏蔽词"),
    }

    def reason_in_words(self) -> str:
        """The reason as a reader of it understands it; a rule's in their language."""
        kind, _colon, rest = self.reason.partition(":")
        why, _colon, word = rest.partition(":")
        if self.by_id is not None or kind != "rule" or why not in self.RULES:
            return self.reason
        return f"{self.RULES[why]}：{word}" if word else str(self.RULES[why])


class Rules(models.Model):
    """Which comments wait for a moderator; one row."""

    hold_first_comments = models.PositiveSmallIntegerField(
        _("新账号的前几条评论先审后发"), default=0, help_text=_("0 表示不留")
    )
    hold_links = models.BooleanField(_("带链接的评论先审后发"), default=True)
    hold_guests = models.BooleanField(_("访客的评论先审后发"), default=True)

    class Meta:
        verbose_name = _("审核规则")
        verbose_name_plural = _("审核规则")

    def __str__(self) -> str:
        return str(self._meta.verbose_name)

    @classmethod
    def load(cls) -> Rules:
        """Give the rules in force; those that nobody has changed are the defaults."""
        return cls.objects.filter(pk=1).first() or cls(pk=1)


class BlockedWord(models.Model):
    class Action(models.TextChoices):
        HOLD = "hold", _("先审后发")
        SPAM = "spam", _("算作垃圾评论")

    word = models.CharField(_("词"), max_length=40, unique=True)
    action = models.CharField(_("做法"), max_length=4, choices=Action.choices, default=Action.HOLD)

    class Meta:
        verbose_name = _("屏蔽词")
        verbose_name_plural = _("屏蔽词")
        ordering = ["word"]

    def __str__(self) -> str:
        return self.word
