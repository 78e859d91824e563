"""The log on stderr: text for people or JSON for machines, with the request it belongs to.

Nobody waits for who reads it: lines go to a thread, and those that find too many before them are
dropped and counted.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import sys
import threading
import time
import uuid
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, Literal

import orjson

__all__ = ["Form", "Level", "begin_request", "configure_logging", "request_id"]

Form = Literal["text", "json"]
Level = Literal["debug", "info", "warning", "error"]

# Of the request that the running code answers; empty outside of any.
request_id: ContextVar[str] = ContextVar("request_id", default="")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

_WAITING_LINES = 1000
# At the end of the process, for lines that still wait.
_LAST_SECONDS = 1.0
# What a stranger can make the web server complain of, as often as he likes.
_SAME_COMPLAINTS, _SAME_SECONDS = 5, 10.0


def configure_logging(form: Form, level: Level = "info") -> None:
    """Write log records of this level and above to stderr in this form."""
    handler = _Unwaiting(sys.stderr.fileno())
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("ppool").setLevel(level.upper())
    logging.captureWarnings(True)
    complaints = logging.getLogger("uvicorn.error")
    complaints.filters.clear()
    complaints.addFilter(_Seldom())


def begin_request(sent: str | None) -> str:
    """Name the request that the running code answers as its client did, or by a new name."""
    identity = sent if sent and _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
    request_id.set(identity)
    return identity


class _Unwaiting(logging.Handler):
    """Hands lines to a thread that writes them."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        # Its put() may interrupt itself, as when a signal handler logs.
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._dropped = 0
        self._written = threading.Event()
        threading.Thread(target=self._write, name="log", daemon=True).start()
        atexit.register(self._finish)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - logging's own way with a record that cannot be formatted
            self.handleError(record)
            return
        if self._lines.qsize() >= _WAITING_LINES:
            self._dropped += 1
        else:
            self._lines.put(line)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            dropped, self._dropped = self._dropped, 0
            if dropped:
                text = f"{dropped} lines of the log were dropped, because nobody read them"
                about = logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None)
                line = f"{line}\n{self.format(about)}"
            self._all(line.encode("utf-8", "backslashreplace") + b"\n")

    def _all(self, content: bytes) -> None:
        try:
            while content:
                content = content[os.write(self._descriptor, content) :]
        except BlockingIOError:  # somebody made it so; a thread can wait
            time.sleep(0.01)
            self._all(content)
        except OSError:
            pass  # nobody will ever read it

    def _finish(self) -> None:
        end = time.monotonic() + _LAST_SECONDS
        while not self._lines.empty() and time.monotonic() < end:
            time.sleep(0.01)


class _Seldom(logging.Filter):
    """Lets through a few of the same complaint, then none for a while, and says how many."""

    def __init__(self) -> None:
        super().__init__()
        self._since: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            return True
        now = time.monotonic()
        since, count = self._since.get(record.msg, (now, 0))
        if now - since > _SAME_SECONDS:
            if count > _SAME_COMPLAINTS:
                record.msg = f"{record.msg} ({count - _SAME_COMPLAINTS} more before)"
            since, count = now, 0
        self._since[record.msg] = since, count + 1
        return count < _SAME_COMPLAINTS


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        text = super().formatMessage(record)
        return f"{text} [{current}]" if (current := request_id.get()) else text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            document["request_id"] = current
        # Given as extra={"fields": {...}} where a record has numbers worth searching for.
        document |= getattr(record, "fields", {})
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(document, default=str).decode()
        except TypeError:  # a file name that is no text
            return json.dumps(document, default=str)
