"""Taking pictures in, over HTTP, and showing them."""

from __future__ import annotations

import pytest
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from blog_site.limits import Rate
from blog_site.media.models import Image, find_digests
from blog_site.media.services import delete_images
from tests.blog import make_user
from tests.media.pictures import make_picture, open_picture

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _forget_tries() -> None:
    from django.core.cache import cache

    cache.clear()


@pytest.fixture
def writer(client: Client):
    user = make_user("writer")
    client.force_login(user)
    return user


def post(client: Client, content: bytes, name: str = "a.png"):
    return client.post(reverse("media:upload"), {"file": SimpleUploadedFile(name, content)})


def test_an_uploaded_picture_can_be_seen_by_everybody(client: Client, writer) -> None:
    answer = post(client, make_picture(700, 350))

    assert answer.status_code == 201
    said = answer.json()
    image = Image.objects.get()
    assert (said["url"], said["width"], said["height"]) == (image.url, 700, 350)
    assert said["markdown"] == f"![]({image.url})"
    assert find_digests(said["markdown"]) == {image.digest}
    shown = Client().get(said["url"])
    assert shown.status_code == 200
    assert open_picture(shown.content).size == (700, 350)
    assert shown["Content-Type"] == "image/webp"
    assert shown["Cache-Control"] == "public, max-age=31536000, immutable"
    assert shown["X-Content-Type-Options"] == "nosniff"
    assert shown["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert Client().get(said["thumbnail"]).status_code == 200
    assert Client().get(said["url"], headers={"If-None-Match": shown["ETag"]}).status_code == 304


def test_the_same_picture_again_is_the_same_row_and_another_ones_is_not_touched(
    client: Client, writer
) -> None:
    first, again = post(client, make_picture()).json(), post(client, make_picture()).json()
    client.force_login(make_user("other"))
    others = post(client, make_picture()).json()

    assert first == again
    assert others["url"] == first["url"]
    assert Image.objects.count() == 2
    delete_images(images=Image.objects.filter(owner=writer))
    assert client.get(first["url"]).status_code == 200
    delete_images(images=Image.objects.all())
    assert client.get(first["url"]).status_code == 404


@pytest.mark.parametrize(
    "content", [b"", b"<svg onload=alert(1)>", b"<html>", make_picture(200, 200, "JPEG")[:900]]
)
def test_what_is_no_picture_is_refused_in_words(client: Client, writer, content: bytes) -> None:
    answer = post(client, content)

    assert answer.status_code == 400
    assert answer.json()["error"]
    assert not Image.objects.exists()


def test_the_name_of_the_file_decides_nothing(client: Client, writer) -> None:
    assert post(client, make_picture(kind="JPEG"), "../../<script>.svg").status_code == 201
    assert post(client, b"<script>alert(1)</script>", "a.png").status_code == 400


def test_strangers_upload_nothing(client: Client) -> None:
    assert post(client, make_picture()).status_code == 401
    assert Client(enforce_csrf_checks=True).post(reverse("media:upload")).status_code == 403


def test_without_a_file_it_is_said(client: Client, writer) -> None:
    assert client.post(reverse("media:upload")).status_code == 400


def test_a_file_above_the_limit_is_refused(client: Client, writer, settings) -> None:
    settings.IMAGE_MAX_BYTES = 500
    answer = post(client, make_picture() + b"\0" * 500)

    assert answer.status_code == 413
    assert "500" in answer.json()["error"]


def test_a_body_above_the_limit_is_not_read_and_elsewhere_a_picture_is_too_much(
    client: Client, writer, settings
) -> None:
    settings.IMAGE_MAX_BYTES = 2_000_000
    assert post(client, b"\0" * 3_100_000).status_code == 400
    answer = client.post(reverse("articles:write"), {"file": SimpleUploadedFile("a.png", b"\0" * 1_100_000)})
    assert answer.status_code == 400


def test_a_writer_uploads_so_many_an_hour_and_refused_ones_count(client: Client, writer, settings) -> None:
    settings.ALLOWANCES = settings.ALLOWANCES | {"uploads": [Rate(2, seconds=3600)]}
    post(client, b"no picture")
    post(client, make_picture())
    answer = post(client, make_picture(50, 50))

    assert answer.status_code == 429
    assert 0 < int(answer["Retry-After"]) <= 3600
    client.force_login(make_user("other"))
    assert post(client, make_picture()).status_code == 201


def test_a_writer_has_so_much_room(client: Client, writer, settings) -> None:
    post(client, make_picture())
    settings.IMAGE_BYTES_PER_WRITER = Image.objects.size_bytes()

    assert post(client, make_picture(50, 50)).status_code == 400
    assert post(client, make_picture()).status_code == 201  # which is there already


@pytest.mark.parametrize(
    "path",
    [
        "x",
        "images/x.webp",
        "images/../../db.sqlite3",
        "../db.sqlite3",
        "images/" + "0" * 32 + ".webp",
        "%2e%2e/db",
    ],
)
def test_nothing_but_pictures_is_shown(client: Client, path: str) -> None:
    assert client.get(f"/media/{path}").status_code == 404


def test_a_file_lies_whole_or_not_at_all(client: Client, writer, monkeypatch) -> None:
    def break_off(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("blog_site.media.storage.write_whole", break_off)
    answer = post(client, make_picture(123, 45))

    assert answer.status_code == 503
    assert not Image.objects.exists()
    monkeypatch.undo()
    assert post(client, make_picture(123, 45)).status_code == 201
    assert default_storage.exists(Image.objects.get().name)
