"""The format of logs: one JSON object a line on stderr, or plain lines on a terminal.

Input: records of ``logging``, whose ``extra={"fields": {...}}`` become fields. Secrets never get here, because no code
logs headers or bodies.
"""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from threading import Lock
from typing import Final, TextIO

import msgspec

_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)  # ten times as fast as json, which alone can escape all but ASCII

Row = tuple[float, str, dict[str, object]]  # of a line: when (seconds since 1970), its message, its fields


class ManyLines(logging.LogRecord):
    """One record for many lines of a logger, for lines so frequent that a record for each would cost more than they."""

    def __init__(self, logger: logging.Logger, rows: list[Row]) -> None:
        super().__init__(logger.name, logging.INFO, __file__, 0, f"{len(rows)} lines", (), None)
        self.rows = rows


class JsonLines(logging.Formatter):
    """``{"time", "level", "logger", "message", ...fields, "error"?}``, ASCII only, so that no text can break a line."""

    def format(self, record: logging.LogRecord) -> str:
        level, logger = record.levelname.lower(), record.name
        lines: list[dict[str, object]] = [
            {"time": _time(created), "level": level, "logger": logger, "message": message, **fields}
            for created, message, fields in _rows_of(record)
        ]
        if record.exc_info:
            lines[-1]["error"] = self.formatException(record.exc_info)
        encoded = _ENCODER.encode_lines(lines)[:-1]
        return encoded.decode() if encoded.isascii() else "\n".join(json.dumps(line, default=str) for line in lines)


class PlainLines(logging.Formatter):
    """``02:03:04 info message (field=value ...)``; control characters are shown escaped, never sent to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        lines = [_plain(record.levelname.lower(), *row) for row in _rows_of(record)]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        return "\n".join(lines)


class CountedLines(logging.StreamHandler[TextIO]):
    """Writes lines; those that cannot be written are lost, and how many is said as soon as it can be."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0
        self._counting = Lock()  # those who log, and the thread that writes

    def _lose(self, lines: int) -> None:
        with self._counting:
            self._lost += lines

    def _write(self, texts: list[str]) -> None:
        with self._counting:
            lost, self._lost = self._lost, 0
        before = [self._gap(lost)] if lost else []
        try:
            self.stream.write("\n".join((*before, *texts, "")))
            self.stream.flush()
        except OSError:
            self._lose(lost + sum(text.count("\n") + 1 for text in texts))

    def _gap(self, lost: int) -> str:
        text = f"{lost} lines of this log before here could not be written and are lost"
        return self.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (), None))


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


def _rows_of(record: logging.LogRecord) -> list[Row]:
    if isinstance(record, ManyLines):
        return record.rows
    return [(record.created, record.getMessage(), getattr(record, "fields", {}))]


def _plain(level: str, created: float, message: str, fields: dict[str, object]) -> str:
    shown = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
    text = f"{_time(created)[11:19]} {level} {message}" + (f" ({shown})" if shown else "")
    return text.encode("unicode_escape").decode()


def _time(created: float) -> str:
    second = int(created)
    return "%s.%03dZ" % (_second(second), (created - second) * 1000)  # noqa: UP031  half the time of an f-string


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    """The same for all lines of a second."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
