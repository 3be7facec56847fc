"""Numbers, sizes and times as people read them."""

import time

import pytest

from mtactl.cli.figures import age, clock, count, date, duration, offset, plural, share, short_count, size


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("number", "long", "short"),
    [
        (0, "0", "0"),
        (999_999, "999,999", "999,999"),
        (1_000_000, "1,000,000", "1.00M"),
        (12_345_678, "12,345,678", "12.3M"),
        (999_499_999, "999,499,999", "999M"),
        (999_600_000, "999,600,000", "1.00G"),
        (4_560_000_000, "4,560,000,000", "4.56G"),
    ],
)
def test_counts(number, long, short):
    """Broken: a count is misread by a factor of a thousand."""
    assert count(number) == long
    assert short_count(number) == short
    assert len(short) <= 7


@pytest.mark.parametrize(
    ("seconds", "told", "short"),
    [
        (0, "0.000 s", "0s"),
        (0.0034, "0.003 s", "0s"),
        (9.9996, "10.000 s", "9s"),
        (59.94, "59.9 s", "59s"),
        (59.96, "1 min", "59s"),
        (60, "1 min", "1m"),
        (3599.9, "1 h", "59m"),
        (15_120, "4 h 12 min", "4h"),
        (273_600, "3 d 4 h", "3d"),
        (-1.5, "-1.500 s", "0s"),
    ],
)
def test_durations(seconds, told, short):
    """Broken: the time that a halt took is told wrongly, with an odd 60 s or a lost unit."""
    assert duration(seconds) == told
    assert age(seconds) == short


def test_shares_are_never_rounded_to_all_or_nothing():
    """Broken: one recipient who got it in a million looks like none."""
    assert share(1, 10_000_000) == "0.1 %"
    assert share(9_999_999, 10_000_000) == "99.9 %"
    assert share(0, 5) == "0.0 %"
    assert share(5, 5) == "100.0 %"
    assert share(0, 0) == ""


def test_sizes_and_plurals():
    """Broken: the space left on the disk is misread."""
    assert [size(n) for n in (0, 1023, 1024, 10 << 30, 3 << 42)] == ["0 B", "1023 B", "1.0 KiB", "10.0 GiB", "12.0 TiB"]
    assert plural(1, "lane") == "1 lane"
    assert plural(2000, "lane") == "2,000 lanes"
    assert plural(2, "is", "are") == "2 are"


def test_times():
    """Broken: the time of a step is off, or a time in an unforeseen form ends the client."""
    asked, done = "2026-11-22T10:00:00.123456Z", "2026-11-22T10:00:02.5Z"
    assert clock(done) == "10:00:02.500"
    assert date(done) == "2026-11-22 10:00:02 UTC"
    assert offset(done, asked) == "+2.377 s"
    assert offset(asked, done) == "-2.377 s"
    assert offset(None, asked) == "" == offset(asked, None)
    assert clock("soon\x1b[2J") == "soon\\x1b[2J"
    assert date(None) == ""
