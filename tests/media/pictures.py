"""Picture files for tests, made when they run."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def make_picture(
    width: int = 40,
    height: int = 30,
    kind: str = "PNG",
    *,
    mode: str = "RGB",
    colour: Any = "teal",
    **options: Any,
) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height), colour).save(out, kind, **options)
    return out.getvalue()


def make_animation(width: int = 40, height: int = 30, frames: int = 3, kind: str = "GIF") -> bytes:
    out = io.BytesIO()
    first, *rest = (
        Image.new("RGB", (width, height), (number * 60 % 256, 80, 120)) for number in range(frames)
    )
    first.save(
        out, kind, save_all=True, append_images=rest, duration=[40 * (n + 1) for n in range(frames)], loop=0
    )
    return out.getvalue()


def open_picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))
