"""The blog's Celery application with one task more, for workers that tests start as processes.

Run as a module, it is a producer: `python -m tests.queue_app FIRST COUNT` queues that many notes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from blog_site.celery import app

# Long enough that a message written in place would often be seen half: several pages of a file.
PAYLOAD = "这条消息必须完整到达。" * 2_000


@app.task(name="tests.take_note")
def take_note(number: int, payload: str, seconds: float = 0.0) -> None:
    """Append the number to the notes, unless the payload was damaged on the way."""
    time.sleep(seconds)
    word = str(number) if payload == PAYLOAD else f"damaged:{number}"
    notes = os.open(Path(os.environ["VAR_DIR"]) / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(notes, f"{word}\n".encode())  # one write of a short line in append mode is whole
    os.close(notes)


def queue_notes(first: int, count: int, seconds: float = 0.0) -> None:
    for number in range(first, first + count):
        app.send_task("tests.take_note", args=[number, PAYLOAD, seconds], retry=False)


if __name__ == "__main__":
    queue_notes(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
