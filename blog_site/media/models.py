"""Pictures that writers have uploaded. A file is named by the digest of what it holds, so it never changes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.core.files.storage import default_storage
from django.db import models
from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

THUMBNAIL_WIDTHS: Final = (320, 640, 1280)  # pixels; of those narrower than the picture there is a file each
DIGEST_LENGTH: Final = 32  # of 64 hexadecimal digits of SHA-256
# infra/nginx/{gateway,store}.conf know names of this form alone.
FILE_NAME: Final = re.compile(
    rf"images/(?P<digest>[0-9a-f]{{{DIGEST_LENGTH}}})(-(?P<width>\d{{2,4}}))?\.webp"
)


class ImageQuerySet(models.QuerySet["Image"]):
    def named_in(self, addresses: Iterable[str]) -> dict[str, Image]:
        """The pictures among these addresses that were uploaded here, by address; one query, or none."""
        digests: dict[str, str] = {}
        for address in addresses:
            found = _ADDRESS.fullmatch(address)
            if found:
                digests[found["digest"]] = address
        if not digests:
            return {}
        return {digests[image.digest]: image for image in self.filter(digest__in=digests)}

    def older_than(self, age: timedelta) -> ImageQuerySet:
        return self.filter(created_at__lt=timezone.now() - age)

    def size_bytes(self) -> int:
        """What these and their thumbnails take together."""
        return self.aggregate(total=Sum("bytes"))["total"] or 0


class Image(models.Model):
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="images", verbose_name=_("上传者")
    )
    digest = models.CharField(_("摘要值"), max_length=DIGEST_LENGTH, db_index=True)
    width = models.PositiveIntegerField(_("宽"))  # pixels
    height = models.PositiveIntegerField(_("高"))
    bytes = models.PositiveIntegerField(_("字节数"))  # with its thumbnails
    animated = models.BooleanField(_("会动"), default=False)
    created_at = models.DateTimeField(_("上传时间"), default=timezone.now)

    objects = ImageQuerySet.as_manager()

    class Meta:
        verbose_name = _("图片")
        verbose_name_plural = pgettext_lazy("list", "图片")
        ordering = ["-created_at", "-id"]
        indexes = [models.Index(fields=["owner", "-created_at"])]
        constraints = [models.UniqueConstraint(fields=["owner", "digest"], name="media_one_of_each_owner")]

    def __str__(self) -> str:
        return f"{self.digest[:8]} ({self.width}×{self.height})"

    @property
    def name(self) -> str:
        """Of its file in the storage."""
        return name_file(self.digest)

    @property
    def url(self) -> str:
        return default_storage.url(self.name)

    def file_names(self) -> list[str]:
        """All its files: the picture, then its thumbnails."""
        return [self.name, *(name_file(self.digest, width) for width in thumbnail_widths(self.width))]

    def thumbnail_url(self, width: int) -> str:
        """The narrowest file of at least this width, or the picture itself."""
        fitting = (each for each in thumbnail_widths(self.width) if each >= width)
        return default_storage.url(name_file(self.digest, next(fitting, None)))

    @property
    def small_url(self) -> str:
        """Of a thumbnail in a list."""
        return self.thumbnail_url(THUMBNAIL_WIDTHS[0])

    @property
    def srcset(self) -> str:
        """Each file with its width, for the browser to choose; of an animation, thumbnails are still."""
        files = [(name_file(self.digest, width), width) for width in thumbnail_widths(self.width)]
        return ", ".join(
            f"{default_storage.url(name)} {width}w" for name, width in [*files, (self.name, self.width)]
        )

    def html_attributes(self) -> dict[str, Any]:
        """What an `img` in a text says of this picture beside its address."""
        size = {"width": self.width, "height": self.height}
        return size if self.animated or not thumbnail_widths(self.width) else {**size, "srcset": self.srcset}

    @staticmethod
    def is_srcset(value: str) -> bool:
        """Whether a text is a `srcset` as it is made here."""
        return all(_CANDIDATE.fullmatch(part) for part in value.split(", "))


def thumbnail_widths(width: int) -> list[int]:
    """The widths of the thumbnails that a picture of this width has."""
    return [each for each in THUMBNAIL_WIDTHS if each < width]


def name_file(digest: str, width: int | None = None) -> str:
    return f"images/{digest}{f'-{width}' if width else ''}.webp"


def find_digests(text: str) -> set[str]:
    """The digests of the pictures that a text names by their addresses."""
    return {found["digest"] for found in re.finditer(_ADDRESS, text)}


_ADDRESS: Final = re.compile(re.escape(settings.MEDIA_URL) + FILE_NAME.pattern)
_CANDIDATE: Final = re.compile(rf"{_ADDRESS.pattern} \d{{2,5}}w")
