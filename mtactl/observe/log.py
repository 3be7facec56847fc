"""The log: structlog, and what libraries say through `logging`, as JSON or for people, a line a record.

Nothing that came from outside can make a second line or move the cursor: control characters are escaped in JSON, and
everything that is not printable on the console. A traceback's lines are indented on the console.
"""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
import structlog

from mtactl.observe.writer import LineWriter

__all__ = ["configure_log", "escape_invisible", "render_console", "render_json", "timestamp"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_INVISIBLE = re.compile("[\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_FIRST_KEYS = ("at", "level", "logger", "event")

_encoder = msgspec.json.Encoder(enc_hook=str, decimal_format="number")

Renderer = Callable[[Mapping[str, Any]], bytes]


def timestamp(at: int) -> str:
    """Give µs since the epoch as RFC 3339 in UTC, with microseconds."""
    seconds, microseconds = divmod(at, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def configure_log(writer: LineWriter, *, form: str, level: str) -> None:
    """Send structlog and `logging` to the writer, as "json" or "console". May be called again to change either."""
    render = render_json if form == "json" else render_console

    def gap(count: int) -> bytes:
        return render(_record("warning", "log", "log lines were left out: the reader is too slow", lines=count))

    writer.gap_line = gap
    structlog.configure(
        processors=[_arrange, _Writing(render, writer)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_Named,
        # A reload may change the level; nothing on a hot path logs through structlog.
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, _Handler)]
    root.addHandler(_Handler(render, writer))
    # What libraries say below a warning is of no use to an administrator.
    root.setLevel(max(_LEVELS[level], logging.WARNING))


def render_json(record: Mapping[str, Any]) -> bytes:
    """Write a record as one line of JSON."""
    try:
        return escape_invisible(_encoder.encode(record) + b"\n")
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        # Lone surrogates, keys that are no text, and the like: rare, but a log line must not fail its caller.
        plain = {str(key): str(value) for key, value in record.items()}
        return json.dumps(plain).encode("ascii") + b"\n"


def escape_invisible(lines: bytes) -> bytes:
    """Escape in JSON what JSON need not escape, but terminals obey or people can't see (DEL, C1, bidi controls)."""
    if lines.isascii() and b"\x7f" not in lines:
        return lines
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", lines.decode()).encode()


def render_console(record: Mapping[str, Any]) -> bytes:
    """Write a record as one line for people, and indented lines for a traceback."""
    clock = str(record.get("at", ""))[11:23]
    words = [clock, f"{record.get('level', ''):<7}", _printable(str(record.get("event", "")))]
    if record.get("logger"):
        words.insert(2, f"{record['logger']}:")
    words += [
        f"{_printable(str(key))}={_quoted(value)}"
        for key, value in record.items()
        if key not in _FIRST_KEYS and key != "exception"
    ]
    lines = [" ".join(words)]
    lines += [f"    {_printable(line)}" for line in str(record.get("exception", "")).splitlines()]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    if not text or any(character in ' "=\\' for character in text) or not text.isprintable():
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{_printable(text)}"'
    return text


def _record(level: str, logger: str, event: str, **values: object) -> dict[str, Any]:
    return {"at": timestamp(time.time_ns() // 1000), "level": level, "logger": logger, "event": event, **values}


def _arrange(logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put time, level, logger and event in front, and make text of an exception."""
    values = dict(event_dict)
    error = values.pop("exc_info", None)
    event = values.pop("event", "")
    level = "error" if method == "exception" else "warning" if method == "warn" else method
    record = _record(level, logger.name, str(event), **{key: values[key] for key in values if key not in _FIRST_KEYS})
    if isinstance(error, BaseException):
        record["exception"] = "".join(traceback.format_exception(error))
    elif isinstance(error, tuple) and error[1] is not None:
        record["exception"] = "".join(traceback.format_exception(*error))
    elif error:
        record["exception"] = traceback.format_exc()
    return record


class _Writing:
    """The last processor: the record goes to the writer, and structlog itself writes nothing."""

    def __init__(self, render: Renderer, writer: LineWriter) -> None:
        self._render = render
        self._writer = writer

    def __call__(self, _logger: Any, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        self._writer.write(self._render(event_dict))
        raise structlog.DropEvent


class _Named:
    """What structlog takes for a logger: only its name is asked."""

    def __init__(self, name: str = "mtactl", *_: object) -> None:
        self.name = name

    def _never(self, **_: object) -> None:
        raise AssertionError("the last processor drops each event")

    debug = info = warning = warn = error = critical = exception = _never


class _Handler(logging.Handler):
    """Takes what libraries log."""

    def __init__(self, render: Renderer, writer: LineWriter) -> None:
        super().__init__()
        self._render = render
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; one that can't be formatted is written as it is."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = f"{record.msg} {record.args}"
        values = _record(record.levelname.lower(), record.name, text)
        if record.exc_info is not None and record.exc_info[1] is not None:
            values["exception"] = "".join(traceback.format_exception(*record.exc_info))
        self._writer.write(self._render(values))
