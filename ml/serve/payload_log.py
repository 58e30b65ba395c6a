"""A sample of what was asked and answered, masked, for a look at drift that figures cannot give."""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler

from ml.serve.exchange import Exchange
from ml.serve.settings import ServeSettings

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_HANDLE = re.compile(r"[@＠][\w\-]+")
_DIGIT = re.compile(r"\d")


class PayloadLog:
    """Writes a line of JSON for a random part of the requests; the file and one older file are bounded in size."""

    def __init__(self, settings: ServeSettings) -> None:
        assert settings.payload_log is not None
        self._rate = settings.payload_rate
        self._handler = RotatingFileHandler(
            settings.payload_log,
            maxBytes=settings.payload_log_bytes,
            backupCount=1,
            encoding="utf-8",
            errors="backslashreplace",  # of lone surrogates, which a text may hold
            delay=True,
        )
        self._handler.setFormatter(logging.Formatter("%(message)s"))

    def sample(self, exchange: Exchange, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Write this request down, or not."""
        if random.random() >= self._rate:
            return
        line = {
            "time": round(time.time(), 3),
            "request_id": exchange.request_id.decode(),
            "model": exchange.model,
            "texts": [mask_text(text) for text in texts],
            "labels": list(labels),
        }
        message = json.dumps(line, ensure_ascii=False)
        self._handler.emit(logging.makeLogRecord({"msg": message, "levelno": logging.INFO}))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


def mask_text(text: str) -> str:
    """Hide what may name or reach a person: e-mail addresses, handles, and every digit."""
    return _DIGIT.sub("0", _HANDLE.sub("<handle>", _EMAIL.sub("<email>", text)))
