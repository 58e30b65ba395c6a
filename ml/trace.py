"""Which request this is: ids that come from outside, checked, or made here. Blog and inference service share it."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Final

REQUEST_ID: Final = b"x-request-id"
TRACE_PARENT: Final = b"traceparent"

# Ids go into answers and logs: nothing but these characters may pass.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
_TRACE_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a distributed trace (W3C Trace Context, https://www.w3.org/TR/trace-context/)."""

    trace_id: str  # 32 hexadecimal digits
    span_id: str  # 16, made here
    flags: str  # 2, passed on

    @property
    def header(self) -> bytes:
        """The traceparent of whatever follows from this request."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}".encode()


def request_id_of(given: bytes | None) -> bytes:
    """Take the caller's X-Request-ID where it is one (1 to 128 plain characters), else make one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return b"%032x" % random.getrandbits(128)


def trace_of(given: bytes | None) -> Trace | None:
    """Take the caller's traceparent; None without one, and for one that the standard says to ignore."""
    found = _TRACE_PARENT.fullmatch(given) if given is not None else None
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    # Version 255 is forbidden, zeros are no ids, and only later versions may have more fields.
    if (
        version == b"ff"
        or not trace_id.strip(b"0")
        or not parent_id.strip(b"0")
        or (version == b"00" and more)
    ):
        return None
    span_id = f"{random.getrandbits(64) or 1:016x}"
    return Trace(trace_id.decode(), span_id, flags.decode())
