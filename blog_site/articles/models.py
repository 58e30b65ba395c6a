"""Articles with their categories and tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Max
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from blog_site.media.models import Image


class Category(models.Model):
    """A column of the blog; in training, each category is a site by default."""

    slug = models.SlugField(_("网址名"), unique=True)
    name = models.CharField(_("名称"), max_length=40, unique=True)
    description = models.CharField(_("简介"), max_length=200, blank=True)
    guests_may_comment = models.BooleanField(
        _("访客可以评论"),
        default=False,
        db_default=False,
        help_text=_("不登录也能评论；审核规则决定是否先审后发"),
    )

    class Meta:
        verbose_name = _("分类")
        verbose_name_plural = pgettext_lazy("list", "分类")
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("articles:category", args=[self.slug])


COUNTED_FOR_TAGS = 100  # articles


class TagQuerySet(models.QuerySet["Tag"]):
    def in_use(self) -> TagQuerySet:
        """Tags of published articles; a draft's tags say what it is about, so they are not shown."""
        return self.filter(articles__in=Article.objects.published()).distinct()

    def popular(self, count: int) -> list[Tag]:
        """Tags of the newest articles, those of most of them first: whatever there is, so many rows are counted."""
        newest = Article.objects.published()[:COUNTED_FOR_TAGS]
        pairs = Article.tags.through.objects.filter(article__in=list(newest.values_list("pk", flat=True)))
        uses = Counter(pairs.values_list("tag", flat=True))
        tags = self.filter(pk__in=uses)
        return sorted(tags, key=lambda tag: (-uses[tag.pk], tag.name))[:count]


class Tag(models.Model):
    slug = models.SlugField(_("网址名"), unique=True, allow_unicode=True, max_length=60)
    name = models.CharField(_("名称"), max_length=40, unique=True)

    objects = TagQuerySet.as_manager()

    class Meta:
        verbose_name = pgettext_lazy("one", "标签")
        verbose_name_plural = _("标签")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("articles:tag", args=[self.slug])


class ArticleQuerySet(models.QuerySet["Article"]):
    def published(self) -> ArticleQuerySet:
        return self.filter(status=Article.Status.PUBLISHED, published_at__lte=timezone.now())

    def with_people(self) -> ArticleQuerySet:
        return self.select_related("author", "category", "cover").prefetch_related("tags")

    def brief(self) -> ArticleQuerySet:
        """With all that a list says of an article, and no more."""
        return self.with_people().defer("body_markdown", "body_html")

    def read(self, keys: Sequence[int]) -> list[Article]:
        """The articles of these keys that there are, in their order, as a list shows them: without their bodies."""
        found = self.brief().in_bulk(keys)
        return [found[key] for key in keys if key in found]

    def drafts(self) -> ArticleQuerySet:
        return self.filter(status=Article.Status.DRAFT)

    def scheduled(self) -> ArticleQuerySet:
        """Those that appear by themselves when their time comes."""
        return self.filter(status=Article.Status.PUBLISHED, published_at__gt=timezone.now())

    def years(self) -> list[int]:
        """The years in which these were published, newest first.

        A query a year, each by the index: the database's own way to cut years needs time zones that MySQL and MariaDB
        come without.
        """
        years: list[int] = []
        before = timezone.now()
        while newest := self.filter(published_at__lt=before).aggregate(at=Max("published_at"))["at"]:
            year = timezone.localtime(newest).year
            years.append(year)
            before = datetime(year, 1, 1, tzinfo=timezone.get_current_timezone())
        return years


class Article(models.Model):
    class Status(models.TextChoices):
        DRAFT = "draft", _("草稿")
        PUBLISHED = "published", _("已发布")

    slug = models.SlugField(_("网址名"), unique=True, allow_unicode=True, max_length=120)
    title = models.CharField(_("标题"), max_length=120)
    summary = models.CharField(_("摘要"), max_length=300, blank=True)
    body_markdown = models.TextField(_("正文"), help_text=_("Markdown"))
    body_html = models.TextField(_("渲染后的正文"), editable=False)  # sanitised by services.render_markdown
    category = models.ForeignKey(
        Category, on_delete=models.PROTECT, related_name="articles", verbose_name=_("分类")
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="articles", verbose_name=_("作者")
    )
    tags = models.ManyToManyField(Tag, blank=True, related_name="articles", verbose_name=_("标签"))
    cover = models.ForeignKey(
        Image,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="covered",
        verbose_name=_("封面"),
    )
    status = models.CharField(_("状态"), max_length=10, choices=Status.choices, default=Status.DRAFT)
    published_at = models.DateTimeField(_("发布时间"), null=True, blank=True)
    comments_open = models.BooleanField(_("开放评论"), default=True, db_default=True)
    # Drawn when the form of a new article is shown: sent twice, by two clicks or by going back, it makes one article.
    form_key = models.UUIDField(null=True, editable=False)
    created_at = models.DateTimeField(_("创建时间"), auto_now_add=True)
    updated_at = models.DateTimeField(_("更新时间"), auto_now=True)

    objects = ArticleQuerySet.as_manager()

    class Meta:
        verbose_name = pgettext_lazy("one", "文章")
        verbose_name_plural = _("文章")
        ordering = ["-published_at", "-id"]
        # Read from their ends: backwards, equal times come by descending ids, as in `ordering`.
        indexes = [
            models.Index(fields=["status", "published_at"]),
            models.Index(fields=["category", "status", "published_at"]),
            models.Index(fields=["author", "status", "published_at"]),
        ]
        constraints = [models.UniqueConstraint(fields=["author", "form_key"], name="one_article_per_form")]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("articles:article", args=[self.slug])

    def is_public(self) -> bool:
        return (
            self.status == self.Status.PUBLISHED
            and self.published_at is not None
            and self.published_at <= timezone.now()
        )

    def tag_names(self) -> str:
        """As they are typed."""
        return ", ".join(tag.name for tag in self.tags.all())

    def is_scheduled(self) -> bool:
        return self.status == self.Status.PUBLISHED and not self.is_public()

    def changed_at(self) -> datetime:
        """When readers last saw something new: an article that waited for its time is new at that time."""
        return max(self.updated_at, self.published_at or self.updated_at)


class OldSlug(models.Model):
    """An address that an article once had; it leads to the present one."""

    slug = models.SlugField(_("网址名"), unique=True, allow_unicode=True, max_length=120)
    article = models.ForeignKey(Article, on_delete=models.CASCADE, related_name="old_slugs")

    class Meta:
        verbose_name = _("旧网址")
        verbose_name_plural = _("旧网址")

    def __str__(self) -> str:
        return self.slug


class Draft(models.Model):
    """What a writer has typed and not saved yet, as the form had it: apart from the article until it is saved.

    A writer who has an article open twice has a draft of each; none is written over by the other.
    """

    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="drafts", verbose_name=_("作者")
    )
    article = models.ForeignKey(
        Article,
        on_delete=models.CASCADE,
        null=True,  # a new one
        blank=True,
        related_name="kept_drafts",
        verbose_name=pgettext_lazy("one", "文章"),
    )
    fields = models.JSONField(_("内容"))  # by the names of ArticleForm, as typed
    revision = models.PositiveIntegerField(_("第几次"), default=1)
    saved_at = models.DateTimeField(_("保存时间"), default=timezone.now)

    class Meta:
        verbose_name = _("未保存的稿子")
        verbose_name_plural = _("未保存的稿子")
        ordering = ["-saved_at", "-id"]
        indexes = [models.Index(fields=["author", "article", "-saved_at"])]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        """Where it is written on."""
        page = (
            reverse("articles:edit", args=[self.article.slug]) if self.article else reverse("articles:write")
        )
        return f"{page}?draft={self.pk}"

    @property
    def title(self) -> str:
        return str(self.fields.get("title") or "") or str(_("没有标题"))


class ArticleViews(models.Model):
    """How often an article was opened on a day of the blog's own time zone; `readership` counts."""

    article = models.ForeignKey(
        Article, on_delete=models.CASCADE, related_name="views", verbose_name=pgettext_lazy("one", "文章")
    )
    day = models.DateField(_("日期"))
    views = models.PositiveIntegerField(_("浏览"))

    class Meta:
        verbose_name = _("浏览数")
        verbose_name_plural = _("浏览数")
        constraints = [models.UniqueConstraint(fields=["article", "day"], name="one_row_per_article_and_day")]

    def __str__(self) -> str:
        return f"{self.day} × {self.views}"


class CarriedViews(models.Model):
    """That counts of this name are in the rows: carried again, they add nothing."""

    name = models.CharField(max_length=32, unique=True)
    at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        verbose_name = _("已计入的浏览")
        verbose_name_plural = _("已计入的浏览")

    def __str__(self) -> str:
        return self.name


class PageVersion(models.Model):
    """Names the state of what hangs on an article's page, its comments above all; `hot` keeps copies by it."""

    article = models.OneToOneField(
        Article, on_delete=models.CASCADE, primary_key=True, related_name="page_version"
    )
    name = models.BigIntegerField()

    class Meta:
        verbose_name = _("页面版本")
        verbose_name_plural = _("页面版本")

    def __str__(self) -> str:
        return str(self.name)


class SearchEntry(models.Model):
    """An article as it is found: its number in the index, and the text that it was indexed with."""

    article = models.OneToOneField(Article, on_delete=models.CASCADE, related_name="search_entry")
    title = models.TextField()
    text = models.TextField()  # summary and body, without markup

    class Meta:
        verbose_name = _("搜索条目")
        verbose_name_plural = _("搜索条目")

    def __str__(self) -> str:
        return self.title


class WordField(models.BinaryField):
    """A word in UTF-8, compared byte by byte whatever collation the database has."""

    LONGEST_BYTES = 48

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        if connection.vendor == "mysql":
            return f"varbinary({self.LONGEST_BYTES})"  # a blob could be no key
        return super().db_type(connection)


class SearchPosting(models.Model):
    """Which texts of a block have a word; `postings` reads and writes it."""

    pk = models.CompositePrimaryKey("block", "word")
    block = models.PositiveIntegerField()
    word = WordField()
    in_titles = models.BinaryField()
    anywhere = models.BinaryField()

    class Meta:
        verbose_name = _("搜索词")
        verbose_name_plural = _("搜索词")

    def __str__(self) -> str:
        return f"{self.block} {bytes(self.word).decode(errors='replace')}"
