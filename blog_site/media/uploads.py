"""How much of a body that holds files is read, where no gateway has looked at it before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, Final

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadhandler import FileUploadHandler

ADDRESSES: Final = (
    "/media/images/",
    "/write/image/",
)  # those that take a picture; infra/nginx/gateway.conf has them
FORM_BYTES: Final = 1024**2  # of the fields that come with a picture


class UploadLimit(FileUploadHandler):
    """Refuses a body unread that is larger than a picture where one is taken, and than a form elsewhere."""

    def handle_raw_input(
        self,
        input_data: IO[bytes],
        META: Mapping[str, Any],
        content_length: int,
        boundary: bytes,
        encoding: str | None = None,
    ) -> None:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if META.get("PATH_INFO") in ADDRESSES:
            limit = settings.IMAGE_MAX_BYTES + FORM_BYTES
        if content_length > limit:
            raise RequestDataTooBig(f"the body has {content_length} bytes: at most {limit} are read here")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        return raw_data  # for the handlers after this one

    def file_complete(self, file_size: int) -> None:
        return None
