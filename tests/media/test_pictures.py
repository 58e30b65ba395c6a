"""What is made of an uploaded file: nothing but its pixels, upright, in sizes that a page can use."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image, ImageCms

from blog_site.media.pictures import MAX_FRAMES, MAX_WIDTH, WrongPicture, encode_picture
from tests.media.pictures import make_animation, make_picture, open_picture

WIDTHS = (320, 640)


def encode(content: bytes):
    return encode_picture(io.BytesIO(content), WIDTHS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_every_kind_becomes_webp_of_the_same_size(kind: str) -> None:
    encoded = encode(make_picture(700, 350, kind))
    kept = open_picture(encoded.content)
    assert (kept.format, kept.size) == ("WEBP", (700, 350))
    assert (encoded.width, encoded.height, encoded.animated) == (700, 350, False)
    assert {width: open_picture(content).size for width, content in encoded.thumbnails.items()} == {
        320: (320, 160),
        640: (640, 320),
    }


def test_the_same_picture_has_the_same_digest() -> None:
    assert encode(make_picture()).digest == encode(make_picture(pnginfo=None, optimize=True)).digest


def test_a_small_picture_has_no_thumbnails_and_a_wide_one_is_made_narrower() -> None:
    assert encode(make_picture(320, 100)).thumbnails == {}
    assert encode(make_picture(MAX_WIDTH * 2, 100)).width == MAX_WIDTH


def test_what_the_camera_wrote_turns_the_picture_and_is_gone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    exif[0x010F] = "a camera's name"
    exif.get_ifd(0x8825)[2] = (31.0, 12.0, 0.0)  # where it was
    encoded = encode(make_picture(60, 30, "JPEG", exif=exif, comment=b"a secret"))
    kept = open_picture(encoded.content)
    assert kept.size == (30, 60)
    assert not kept.getexif()
    assert not {"exif", "xmp", "icc_profile", "comment"} & kept.info.keys()
    assert b"camera" not in encoded.content
    assert b"secret" not in encoded.content


def test_colours_of_another_profile_are_translated_and_a_broken_profile_is_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for written in (profile, b"not a profile"):
        kept = open_picture(
            encode(make_picture(40, 30, "JPEG", colour=(200, 30, 40), icc_profile=written)).content
        )
        assert "icc_profile" not in kept.info
        assert abs(kept.convert("RGB").getpixel((20, 15))[0] - 200) < 12


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("L", 100), ("LA", (100, 50)), ("P", 3), ("RGBA", (9, 9, 9, 90)), ("1", 1), ("I;16", 30_000)],
)
def test_every_mode_of_pixels_is_taken(mode: str, colour: object) -> None:
    kept = open_picture(encode(make_picture(mode=mode, colour=colour)).content)
    assert kept.mode == ("RGBA" if "A" in mode else "RGB")


def test_transparency_stays() -> None:
    assert (
        open_picture(encode(make_picture(mode="RGBA", colour=(9, 9, 9, 0))).content).getpixel((5, 5))[3] == 0
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_goes_on_moving_and_its_thumbnails_are_still(kind: str) -> None:
    encoded = encode(make_animation(400, 200, frames=3, kind=kind))
    kept = open_picture(encoded.content)
    assert (encoded.animated, kept.n_frames, kept.size) == (True, 3, (400, 200))
    durations = []
    for frame in range(3):
        kept.seek(frame)
        kept.load()
        durations.append(kept.info["duration"])
    assert durations == [40, 80, 120]
    assert open_picture(encoded.thumbnails[320]).n_frames == 1


def test_an_animation_that_is_too_long_is_refused_before_all_of_it_is_read() -> None:
    with pytest.raises(WrongPicture) as refusal:
        encode(make_animation(2, 2, frames=MAX_FRAMES + 1))
    assert refusal.value.code == "animation"


def test_what_follows_the_picture_is_not_kept() -> None:
    page = b"<script>alert(document.domain)</script>"
    for content in (
        make_picture(kind="GIF") + page,
        make_picture(kind="JPEG", comment=page),
        make_picture() + page,
    ):
        encoded = encode(content)
        assert b"script" not in encoded.content


def _png_of_size(width: int, height: int) -> bytes:
    """A PNG that says that it is large and holds nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 999))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(100_000, 100_000), (30_000, 20), (20, 30_000), (6_000, 6_000)])
def test_a_picture_of_too_many_pixels_is_refused_unread(size: tuple[int, int]) -> None:
    with pytest.raises(WrongPicture) as refusal:
        encode(_png_of_size(*size))
    assert refusal.value.code == "pixels"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "kind"),
        (b"GIF89a", "kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "kind"),
        (b"<!doctype html><script>alert(1)</script>", "kind"),
        (b"%PDF-1.7\n%", "kind"),
        (b"BM" + b"\0" * 200, "kind"),
        (make_picture(200, 200, "JPEG")[:900], "damaged"),
        (make_picture(200, 200, "WEBP", lossless=True, colour="red")[:40], "damaged"),
        (_png_of_size(50, 50), "damaged"),
    ],
)
def test_a_file_that_is_no_whole_picture_is_refused(content: bytes, code: str) -> None:
    with pytest.raises(WrongPicture) as refusal:
        encode(content)
    assert refusal.value.code == code


def test_a_photograph_larger_than_what_is_decoded_at_once_is_made_smaller() -> None:
    encoded = encode(make_picture(7000, 4200, "JPEG", mode="L", colour=90))
    assert (encoded.width, encoded.height) == (MAX_WIDTH, round(4200 * MAX_WIDTH / 7000))
