"""How a log looks: one JSON object a line on stderr, or plain lines when a person watches a terminal.

Input: records of ``logging``, whose ``extra={"fields": {...}}`` become fields. Secrets never come here: no code logs
headers or bodies.
"""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TextIO

import msgspec

_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)  # ten times as fast as json, which alone can escape all but ASCII


class JsonLines(logging.Formatter):
    """``{"time", "level", "logger", "message", ...fields, "error"?}``, ASCII only, so that no text can break a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        encoded = _ENCODER.encode(line)
        return encoded.decode() if encoded.isascii() else json.dumps(line, default=str)


class PlainLines(logging.Formatter):
    """``02:03:04 info message (field=value ...)``; control characters are shown escaped, never sent to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        shown = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        text = f"{_time(record)[11:19]} {record.levelname.lower()} {record.getMessage()}" + (
            f" ({shown})" if shown else ""
        )
        safe = text.encode("unicode_escape").decode()
        return safe + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def configure_log(
    stream: TextIO = sys.stderr, sink: Callable[[TextIO], logging.Handler] = logging.StreamHandler
) -> None:
    """Sends every log of this process to ``stream``; called once, by the program."""
    handler = sink(stream)
    handler.setFormatter(PlainLines() if stream.isatty() else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _time(record: logging.LogRecord) -> str:
    second = int(record.created)
    return "%s.%03dZ" % (_second(second), (record.created - second) * 1000)  # noqa: UP031  half the time of an f-string


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    """The same for all lines of a second."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
