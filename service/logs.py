"""Log lines, as text for people or as JSON for machines."""

import contextlib
import json
import logging
import logging.handlers
import os
import queue
import threading
from typing import Any, Literal

_MOST_LINES = 10_000  # that wait to be written
_CLOSE_S = 1.0


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry | getattr(record, "fields", {}))


class _Text(logging.Formatter):
    """What a client sent can neither begin a line nor move the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        return visible(f"{super().formatMessage(record).rstrip()} {fields}".rstrip())

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return "\n".join(f"  {visible(line)}" for line in super().formatException(ei).splitlines())


def visible(text: str) -> str:
    """Escape what is no space and cannot be seen: control characters, separators of lines, marks of direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Background(logging.handlers.QueueHandler):
    """Writes to standard error in a thread of its own, so that a pipe that nobody reads stops nothing else."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()  # a signal handler may log
        self._dropped = 0
        super().__init__(self._lines)
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        waiting = self._lines.qsize()
        if waiting >= _MOST_LINES:
            self._dropped += 1
            return
        if self._dropped and waiting < _MOST_LINES // 2:  # not before: one more line in two would be this one
            told = f"{self._dropped} log lines were dropped: nobody read standard error in time"
            self._dropped = 0
            notice = logging.makeLogRecord({"name": __name__, "levelname": "WARNING", "msg": told})
            self._lines.put(self.prepare(notice))
        self._lines.put(record)

    def _write(self) -> None:
        for record in iter(self._lines.get, None):
            with contextlib.suppress(OSError):  # nobody is there any more
                os.write(2, f"{record.msg}\n".encode())  # sys.stderr has a lock, which the interpreter needs at its end

    def close(self) -> None:
        """Write what waits, but not for ever. ``logging`` calls this at exit."""
        self._lines.put(None)
        self._writer.join(_CLOSE_S)
        super().close()


def configure(style: Literal["text", "json"]) -> None:
    """Send all logs to standard error. A record's ``fields`` (``extra={"fields": {...}}``) become its structure."""
    handler = _Background()
    handler.setFormatter(_Json() if style == "json" else _Text("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
