"""Tensors as bytes after the JSON of a request or an answer, as the Open Inference Protocol's extension has it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from ml.serve.problems import Problem

JSON_LENGTH: Final = b"inference-header-content-length"  # says where the JSON ends and the tensors begin
_LENGTH: Final = struct.Struct("<I")  # before each string


def split_binary(body: bytes, json_length: bytes | None) -> tuple[bytes, bytes]:
    """Part a body into its JSON and the tensors after it; raises Problem 422 for a length that cannot be."""
    if json_length is None:
        return body, b""
    if not json_length.isdigit() or len(json_length) > 12 or int(json_length) > len(body):
        raise Problem(
            422,
            f"Inference-Header-Content-Length is {json_length.decode('ascii', 'replace')!r:.40}, the body has "
            f"{len(body)} bytes",
            reason="limits",
        )
    size = int(json_length)
    return body[:size], body[size:]


def unpack_strings(content: bytes) -> list[str]:
    """Read strings, each after its length; raises Problem 422 for bytes that are none, or not in UTF-8."""
    strings, at = [], 0
    try:
        while at < len(content):
            (size,) = _LENGTH.unpack_from(content, at)
            at += _LENGTH.size
            if at + size > len(content):
                raise ValueError(f"a string of {size} bytes at byte {at} of {len(content)}")
            strings.append(content[at : at + size].decode())
            at += size
    except (struct.error, ValueError) as error:
        raise Problem(422, f"inputs[0] holds no strings in UTF-8: {error}", reason="limits") from error
    return strings


def pack_strings(strings: Sequence[str]) -> bytes:
    """Write strings, each after its length."""
    encoded = [string.encode() for string in strings]
    return b"".join(_LENGTH.pack(len(string)) + string for string in encoded)
