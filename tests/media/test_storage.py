"""Pictures in the store behind HTTP that all web processes of a cluster share, and their copy in a backup."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import call_command

from blog_site.media.backups import DAY_SECONDS
from blog_site.media.models import Image, name_file
from blog_site.media.storage import StoreStorage
from federated.store import StoreError
from tests.blog import make_user
from tests.infra.nginx.servers import BLOG_TOKEN, READ_TOKEN, running_store
from tests.servers import find_free_port

DIGEST = "abcdef01" * 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_store(tmp_path_factory.mktemp("store")) as nginx:
        yield f"{nginx.url}/media"


def test_a_picture_goes_into_the_store_and_comes_out_for_every_process(store: str) -> None:
    one, other = StoreStorage(store, BLOG_TOKEN), StoreStorage(store, BLOG_TOKEN)
    name = name_file(DIGEST, 640)
    assert not one.exists(name)
    with pytest.raises(FileNotFoundError):
        one.open(name)

    for _ in range(2):  # the same again is no other name
        assert one.save(name, ContentFile(b"pixels")) == name

    assert other.exists(name)
    assert other.open(name).read() == b"pixels"
    assert other.url(name) == f"/media/{name}"
    for _ in range(2):
        other.delete(name)
    assert not one.exists(name)


def test_what_the_store_refuses_is_an_error_that_says_so(store: str) -> None:
    with pytest.raises(StoreError, match="403"):
        StoreStorage(store, READ_TOKEN).save(name_file(DIGEST), ContentFile(b"x"))
    with pytest.raises(StoreError, match="404|missing"):
        StoreStorage(store, BLOG_TOKEN).save("images/evil.html", ContentFile(b"x"))


def test_a_store_that_is_away_is_waited_for_and_then_named(monkeypatch) -> None:
    monkeypatch.setattr("blog_site.media.storage.PATIENCE_SECONDS", 0.2)
    with pytest.raises(StoreError, match="cannot be reached"):
        StoreStorage(f"http://127.0.0.1:{find_free_port()}/media", BLOG_TOKEN).exists(name_file(DIGEST))


@pytest.mark.django_db
def test_a_backup_copies_each_picture_once_and_puts_back_what_is_lost(tmp_path: Path) -> None:
    image = Image.objects.create(owner=make_user(), digest=DIGEST, width=700, height=10, bytes=1)
    for name in image.file_names():
        default_storage.save(name, ContentFile(name.encode()))
    folder = tmp_path / "images-backup"
    call_command("copy_images", folder)
    copies = {str(path.relative_to(folder)) for path in folder.rglob("*.webp")}
    assert copies == set(image.file_names())
    old = time.time() - 31 * DAY_SECONDS
    for path in folder.rglob("*.webp"):
        os.utime(path, (old, old))
    (folder / "images" / f"{'9' * 32}.webp").write_bytes(b"of a picture that is gone")
    os.utime(folder / "images" / f"{'9' * 32}.webp", (old, old))

    call_command("copy_images", folder)

    assert {str(path.relative_to(folder)) for path in folder.rglob("*.webp")} == set(image.file_names())
    default_storage.delete(image.name)
    call_command("copy_images", folder, "--back")
    with default_storage.open(image.name) as file:
        assert file.read() == image.name.encode()
