"""Where pictures lie: a folder of this machine, or the store behind HTTP that all web processes of a cluster share.

A name says what the file holds, so writing one again changes nothing and no name is ever given another suffix.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import httpx
from django.conf import settings
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, Storage
from django.utils.deconstruct import deconstructible

from federated.http_store import MAX_SMALL_BYTES, ask_patiently, check, receive
from federated.store import MissingFile, write_whole

PATIENCE_SECONDS = 3.0  # somebody waits for the page


@deconstructible
class FolderStorage(FileSystemStorage):
    """A folder in which a file appears whole or not at all."""

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name

    def _save(self, name: str, content: File) -> str:
        write_whole(Path(self.path(name)), content.read())
        return name


@deconstructible
class StoreStorage(Storage):
    """The folder media/ of an artifact store behind HTTP; see infra/nginx/store.conf. Raises federated's StoreError."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self._url = (settings.MEDIA_STORE_URL if url is None else url).rstrip("/")
        token = settings.ARTIFACT_STORE_TOKEN if token is None else token
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name

    def url(self, name: str | None) -> str:
        return f"{settings.MEDIA_URL}{name}"

    def exists(self, name: str) -> bool:
        try:
            self._ask(lambda http, url: check(http.head(url)), name)
        except MissingFile:
            return False
        return True

    def delete(self, name: str) -> None:
        try:
            self._ask(lambda http, url: check(http.delete(url)), name)
        except MissingFile:
            return

    def _open(self, name: str, mode: str = "rb") -> File:
        def get(http: httpx.Client, url: str) -> IO[bytes]:
            content = ContentFile(b"", name=name)
            receive(http, url, content, MAX_SMALL_BYTES)
            content.seek(0)
            return content

        try:
            return self._ask(get, name)
        except MissingFile as error:
            raise FileNotFoundError(str(error)) from error

    def _save(self, name: str, content: File) -> str:
        body = content.read()
        self._ask(lambda http, url: check(http.put(url, content=body)), name)
        return name

    def _ask(self, ask: Any, name: str) -> Any:
        url = f"{self._url}/{name}"
        return ask_patiently(lambda http: ask(http, url), url, PATIENCE_SECONDS, self._headers)
