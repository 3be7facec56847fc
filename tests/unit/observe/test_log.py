"""What the log says, in both forms."""

import json
import logging
import os
import re

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from mtactl.observe.log import configure_log, render_console, render_json, timestamp
from mtactl.observe.writer import LineWriter


@pytest.fixture
def log(tmp_path):
    """Give a function that configures the log, and one that gives what was written."""
    path = tmp_path / "log"
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = LineWriter(out)
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]

    def configure(form, level):
        configure_log(writer, form=form, level=level)

    def written():
        writer.close()
        return path.read_text().splitlines()

    yield configure, written
    writer.close()
    os.close(out)
    root.setLevel(level)
    root.handlers[:] = handlers
    structlog.reset_defaults()


def test_json(log):
    """What a log shipper parses: one object a line, the same keys each time."""
    configure, written = log
    configure("json", "info")
    logger = structlog.get_logger("core")
    logger.info("halted", campaign="c1", queued=3, path=os.fspath("/x"), level="mine", nested={"a": [1]})
    logger.debug("not wanted")
    logger.bind(peer="x").warning("%s of %s", 1, 2)
    first, second = map(json.loads, written())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first.pop("at"))
    assert first == {
        "level": "info",
        "logger": "core",
        "event": "halted",
        "campaign": "c1",
        "queued": 3,
        "path": "/x",
        "nested": {"a": [1]},
    }
    assert second["event"] == "1 of 2"
    assert second["peer"] == "x"


def test_console(log):
    """What a person reads: time, level, where, what."""
    configure, written = log
    configure("console", "debug")
    structlog.get_logger("core").debug("started", queued=3, text="a b", empty="", quote='say "hi"')
    (line,) = written()
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d\.\d{3} debug   core: started queued=3 text="a b" empty="" quote="say \\"hi\\""', line
    )


def test_exceptions(log):
    """An error without its traceback can't be mended; one whose traceback makes lines of its own forges records."""
    configure, written = log
    configure("json", "info")
    logger = structlog.get_logger()
    try:
        raise ValueError("bad\ninfo forged: line")
    except ValueError as error:
        logger.exception("failed")
        logger.error("failed", exc_info=error)
        logging.getLogger("library").exception("failed %d", 1)
        configure("console", "info")
        logger.exception("failed")
    lines = written()
    for line in lines[:3]:
        record = json.loads(line)
        assert record["level"] == "error"
        assert "ValueError: bad\ninfo forged" in record["exception"]
    assert "error   mtactl: failed" in lines[3]
    assert all(line.startswith("    ") for line in lines[4:])


def test_what_libraries_log(log):
    """asyncio tells of a task that died through `logging` only."""
    configure, written = log
    configure("json", "info")
    configure("json", "info")
    logging.getLogger("asyncio").error("Task exception was never %s", "retrieved")
    (handler,) = [one for one in logging.getLogger().handlers if type(one).__module__ == "mtactl.observe.log"]
    # Not through the logger: pytest's own handler raises on what can't be formatted.
    handler.emit(logging.LogRecord("x", logging.WARNING, "x.py", 1, "broken %d", ("format",), None))
    logging.getLogger("aiohttp").info("chatter")
    first, second = map(json.loads, written())
    assert (first["logger"], first["level"], first["event"]) == (
        "asyncio",
        "error",
        "Task exception was never retrieved",
    )
    assert second["event"] == "broken %d ('format',)"


def test_the_level_can_be_changed(log):
    """A reload to "debug" that does nothing until a restart is of no use in the middle of trouble."""
    configure, written = log
    configure("json", "error")
    logger = structlog.get_logger("x")
    logger.info("before")
    configure("json", "debug")
    logger.debug("after")
    assert [json.loads(line)["event"] for line in written()] == ["after"]


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.none()))
def test_nothing_breaks_a_line(event, key, values):
    """A reply of a hostile peer could forge records, or send commands to the administrator's terminal."""
    record = {"at": "2026-11-22T10:00:00.123456Z", "level": "info", "logger": "x", "event": event, key: "v", **values}
    for render in (render_json, render_console):
        line = render(record).decode()
        assert line.endswith("\n")
        # a traceback's lines are indented on the console, so that none of them looks like a record
        first, *more = line[:-1].split("\n")
        assert not more or (render is render_console and "exception" in record)
        assert all(each.startswith("    ") for each in more)
        assert not any(re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e]", each) for each in (first, *more))
    if "exception" not in record and "\x00" not in line:
        assert line[:-1].isprintable()
    json.loads(render_json(record))


def test_what_json_has_no_form_for(log):
    """A value that can't be written must not fail the caller in the middle of a halt."""
    assert json.loads(render_json({"event": "x", "why": OSError("no room"), 5: {1, 2}}))["why"] == "no room"
    assert json.loads(render_json({"event": "lone \ud800"}))["event"] == "lone \ud800"
    assert b"lone \\ud800" in render_console({"event": "lone \ud800"})
    circle = []
    circle.append(circle)
    assert json.loads(render_json({"event": circle}))


def test_timestamps():
    """All times are RFC 3339 in UTC with microseconds, also where they are 0."""
    assert timestamp(1_795_341_600_123_456) == "2026-11-22T10:00:00.123456Z"
    assert timestamp(1_795_341_600_000_000) == "2026-11-22T10:00:00.000000Z"
