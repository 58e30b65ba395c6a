"""What a picture is made of, and what is made of it. Knows nothing of the blog.

Nothing of an uploaded file is kept: its pixels are decoded and encoded anew. So what was hidden in it (where it was
taken, a script after its end, a page that some browser would show) does not reach a reader.
"""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Final

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
MAX_WIDTH: Final = 1_920  # a wider one is made narrower
MAX_SIDE: Final = 16_000  # WebP ends at 16,383 pixels
MAX_PIXELS: Final = 24_000_000  # decoded at once
# A photograph is decoded at a fraction of its size where it is to be made smaller anyway.
MAX_PHOTO_PIXELS: Final = 110_000_000
MAX_ANIMATION_PIXELS: Final = 40_000_000  # of all frames together
MAX_FRAMES: Final = 300
_QUALITY: Final = 82
_PHOTOS: Final = (
    "JPEG",
    "MPO",
)  # MPO: a telephone's JPEG with further pictures behind it, of which the first is meant
_PHOTO_SIDE: Final = 2_000
_LOSSLESS_PIXELS: Final = 4_000_000
_LOSSLESS_UP_TO_BYTES: Final = (
    400_000  # drawings and screenshots stay as sharp as they are while that costs no more
)
# One at a time in a process: what a picture takes in memory must fit beside what pages take.
_DECODING: Final = threading.Lock()


class WrongPicture(ValueError):
    """The file is none of a kind that is taken, is damaged, or is too large; `code` says which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Encoded:
    """A picture as it is kept: WebP, and smaller ones by width."""

    digest: str  # SHA-256 of `content`, hexadecimal
    content: bytes
    width: int
    height: int
    animated: bool
    thumbnails: dict[int, bytes]

    @property
    def size_bytes(self) -> int:
        return len(self.content) + sum(map(len, self.thumbnails.values()))


def encode_picture(file: IO[bytes], widths: Sequence[int]) -> Encoded:
    """Decode a picture and encode it anew, upright and without whatever else the file holds.

    `widths` are those of the smaller ones wanted, in pixels. Raises WrongPicture.
    """
    with _DECODING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large pictures, whose limits are our own
        try:
            with Image.open(file, formats=FORMATS) as image:
                return _encode(image, widths)
        except UnidentifiedImageError as error:
            raise WrongPicture("kind", "the file is no JPEG, PNG, WebP or GIF") from error
        except Image.DecompressionBombError as error:
            raise WrongPicture("pixels", f"the picture has too many pixels: {error}") from error
        # What Pillow's decoders raise for a file that is damaged.
        except (
            OSError,
            ValueError,
            SyntaxError,
            EOFError,
            struct.error,
            MemoryError,
            IndexError,
            TypeError,
        ) as error:
            if isinstance(error, WrongPicture):
                raise
            raise WrongPicture("damaged", f"the file cannot be decoded: {error}") from error


def _encode(image: Image.Image, widths: Sequence[int]) -> Encoded:
    photo = image.format in _PHOTOS
    _check_size(image.size, MAX_PHOTO_PIXELS if photo else MAX_PIXELS)
    # Not the library's own count of frames: it reads them all, however many there are.
    durations = [] if photo else _read_durations(image)
    if len(durations) > 1:
        return _encode_animation(image, durations, widths)
    still = _fit(_upright(image, photo=photo), MAX_WIDTH)
    content = _write_still(still, lossless=not photo and still.width * still.height <= _LOSSLESS_PIXELS)
    return _describe(still, content, animated=False, thumbnails=_shrink(still, widths))


def _check_size(size: tuple[int, int], limit: int) -> None:
    width, height = size
    if width * height > limit or max(size) > MAX_SIDE or min(size) < 1:
        raise WrongPicture(
            "pixels",
            f"the picture has {width}×{height} pixels: at most {limit} are taken, and {MAX_SIDE} a side",
        )


def _read_durations(image: Image.Image) -> list[float]:
    """How long each frame is shown, in milliseconds; of a still picture, one number."""
    durations: list[float] = []
    while True:
        try:
            image.seek(len(durations))
        except EOFError:
            break
        image.load()  # before that some formats do not know it
        durations.append(image.info.get("duration", 0) or 100)
        if len(durations) > MAX_FRAMES or image.width * image.height * len(durations) > MAX_ANIMATION_PIXELS:
            raise WrongPicture(
                "animation",
                f"the animation has more than {MAX_FRAMES} frames, or {MAX_ANIMATION_PIXELS} pixels together",
            )
    image.seek(0)
    return durations


def _upright(image: Image.Image, *, photo: bool) -> Image.Image:
    """The picture's pixels as they are to be seen: turned as the camera was, in the colours of the web."""
    if photo:
        image.draft("RGB", (_PHOTO_SIDE, _PHOTO_SIDE))  # before loading: at a half, a quarter or an eighth
        _check_size(image.size, MAX_PIXELS)
    image.load()
    ImageOps.exif_transpose(
        image, in_place=True
    )  # in place, and converted only where needed: a copy is 100 MB
    if image.mode.startswith("I"):  # 16 bits a channel
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    mode = "RGBA" if has_alpha else "RGB"
    plain = _in_srgb(image) if image.mode == mode else _in_srgb(image).convert(mode)
    plain.info.clear()
    return plain


def _in_srgb(image: Image.Image) -> Image.Image:
    """Translate colours of another profile, such as a telephone's wider one; one that makes no sense is ignored."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        translated = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode=image.mode
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return translated or image


def _fit(image: Image.Image, width: int) -> Image.Image:
    if image.width <= width:
        return image
    size = (width, max(1, round(image.height * width / image.width)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _write_still(image: Image.Image, *, lossless: bool = False) -> bytes:
    if lossless:
        content = _write(image, lossless=True, quality=60, method=3)
        if len(content) <= _LOSSLESS_UP_TO_BYTES:
            return content
    return _write(image, quality=_QUALITY, method=3)


def _write(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", **options)
    return out.getvalue()


def _shrink(image: Image.Image, widths: Sequence[int]) -> dict[int, bytes]:
    """The smaller ones, each made of the one above it."""
    thumbnails: dict[int, bytes] = {}
    for width in sorted((each for each in widths if each < image.width), reverse=True):
        image = _fit(image, width)
        thumbnails[width] = _write_still(image)
    return thumbnails


def _encode_animation(image: Image.Image, durations: Sequence[float], widths: Sequence[int]) -> Encoded:
    """Keep an animation moving, at its own size; its smaller ones are of its first frame and still."""
    if image.width > MAX_WIDTH:
        raise WrongPicture(
            "animation", f"the animation is {image.width} pixels wide: at most {MAX_WIDTH} are taken"
        )
    first = image.convert("RGBA")
    first.info.clear()
    out = io.BytesIO()
    # Frame by frame, so that never all of them are in memory.
    image.save(
        out,
        "WEBP",
        save_all=True,
        quality=70,
        method=2,
        duration=list(durations),
        loop=image.info.get("loop", 1),
    )
    return _describe(first, out.getvalue(), animated=True, thumbnails=_shrink(first, widths))


def _describe(image: Image.Image, content: bytes, *, animated: bool, thumbnails: dict[int, bytes]) -> Encoded:
    digest = hashlib.sha256(content).hexdigest()
    return Encoded(digest, content, image.width, image.height, animated, thumbnails)
