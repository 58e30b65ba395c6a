"""Taking pictures in and giving unused ones up."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import UploadedFile
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _

from blog_site.users.models import User

from .models import DIGEST_LENGTH, THUMBNAIL_WIDTHS, Image, name_file
from .pictures import MAX_ANIMATION_PIXELS, MAX_FRAMES, Encoded, WrongPicture, encode_picture

logger = logging.getLogger(__name__)


class UploadRefused(Exception):
    """A picture that is not taken; `message` tells its owner why."""

    status = 400

    def __init__(self, message: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class UploadTooLarge(UploadRefused):
    status = 413


class StorageAway(UploadRefused):
    status = 503


def store_image(*, owner: User, file: UploadedFile) -> Image:
    """Take a picture in: decoded, encoded anew, its thumbnails made. The same one again gives the same row.

    Raises UploadRefused, with a sentence for the owner.
    """
    if (file.size or 0) > settings.IMAGE_MAX_BYTES:
        raise UploadTooLarge(
            _("图片有 %(size)s，最多 %(limit)s。请压缩后再上传。")
            % {"size": filesizeformat(file.size), "limit": filesizeformat(settings.IMAGE_MAX_BYTES)}
        )
    try:
        encoded = encode_picture(file.file or file, THUMBNAIL_WIDTHS)
    except WrongPicture as refusal:
        logger.info("a picture of %s is refused: %s", owner.pk, refusal)
        raise UploadRefused(_say(refusal)) from refusal
    digest = encoded.digest[:DIGEST_LENGTH]
    kept = Image.objects.filter(owner=owner, digest=digest).first()
    return kept or _keep(owner, digest, encoded)


def _keep(owner: User, digest: str, encoded: Encoded) -> Image:
    if Image.objects.filter(owner=owner).size_bytes() + encoded.size_bytes > settings.IMAGE_BYTES_PER_WRITER:
        raise UploadRefused(
            _("你的图片已经占满了 %(limit)s。删掉一些用不到的文章和图片再来。")
            % {"limit": filesizeformat(settings.IMAGE_BYTES_PER_WRITER)}
        )
    try:  # the files first: a row promises that they are there
        for width, content in encoded.thumbnails.items():
            default_storage.save(name_file(digest, width), ContentFile(content))
        default_storage.save(name_file(digest), ContentFile(encoded.content))
    except OSError as error:
        logger.error("a picture of %s cannot be kept: %s", owner.pk, error)
        raise StorageAway(_("图片现在存不进去，请过一会儿再试。"), retry_after_seconds=30) from error
    image, _made = Image.objects.get_or_create(
        owner=owner,
        digest=digest,
        defaults={
            "width": encoded.width,
            "height": encoded.height,
            "bytes": encoded.size_bytes,
            "animated": encoded.animated,
        },
    )
    return image


def _say(refusal: WrongPicture) -> str:
    sentences = {
        "kind": _("这不是能用的图片。请上传 JPEG、PNG、WebP 或 GIF。"),
        "pixels": _("图片太大了。请先缩小到四千像素以内再上传。"),
        "animation": _("动图太长了，最多 %(frames)d 帧、合计 %(pixels)d 万像素。")
        % {"frames": MAX_FRAMES, "pixels": MAX_ANIMATION_PIXELS // 10_000},
        "damaged": _("图片打不开，可能没有传完或者已经损坏。"),
    }
    return sentences[refusal.code]


def delete_images(*, images: Iterable[Image]) -> int:
    """Remove pictures with their files, unless somebody else has the same one; gives how many rows went."""
    removed = 0
    for image in images:
        if not Image.objects.filter(digest=image.digest).exclude(pk=image.pk).exists():
            for name in reversed(image.file_names()):  # the row last: what failed half way is found again
                default_storage.delete(name)
        removed += image.delete()[0] > 0
    return removed
