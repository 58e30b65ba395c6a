"""A message queue in a folder, for a laptop: kombu's filesystem transport with atomic writes."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from time import time_ns
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    """Messages appear whole: kombu's own `_put` opens the final name first and writes afterwards, so that a
    worker that looks in between takes an empty message and dies on it (kombu 5.7)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # kombu lists the folder of messages before it makes it.
        for folder in (self.data_folder_in, self.data_folder_out, self.processed_folder, self.control_folder):
            Path(folder).mkdir(parents=True, exist_ok=True)

    def _put(self, queue: str, payload: dict[str, Any], **kwargs: Any) -> None:
        folder = Path(self.data_folder_out)
        # The wall clock orders messages of several processes and across a restart of the machine.
        name = f"{time_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        unfinished = folder / f".{name}.unfinished"
        unfinished.write_text(dumps(payload), encoding="utf-8")
        os.replace(unfinished, folder / name)


class Transport(filesystem.Transport):
    """`folder:///absolute/path`: the folder holds messages, `control/` the bindings, `taken/` what is being read."""

    Channel = Channel
