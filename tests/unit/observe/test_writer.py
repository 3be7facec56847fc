"""The log's way out: never in the event loop's way, and honest about what was left out."""

import os
import time

import pytest

from mtactl.observe.writer import LineWriter


@pytest.fixture
def pipe():
    """Give a pipe's two ends."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        os.close(end)


def read_all(descriptor):
    """Read until all writers have closed."""
    data = b""
    while chunk := os.read(descriptor, 1 << 16):
        data += chunk
    return data


def wait_until(condition):
    """Wait until the writer's thread has done something."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_lines_come_in_order(pipe):
    """A log out of order tells another story."""
    reader, out = pipe
    writer = LineWriter(out)
    for number in range(500):
        writer.write(b"%d\n" % number)
    writer.close()
    os.set_blocking(reader, False)
    assert os.read(reader, 1 << 16) == b"".join(b"%d\n" % number for number in range(500))
    assert writer.left_out == 0


def test_a_blocked_reader(pipe):
    """If writing to a blocked stderr waits, a forgotten `journalctl` stops the mail; if it is silent, lines vanish."""
    reader, out = pipe
    line = b"x" * 99 + b"\n"
    writer = LineWriter(out, limit=10_000, gap_line=lambda count: b"gap %d\n" % count)
    wait_until_full = 0
    while writer.left_out == 0:  # the pipe's own 64 KiB are filled first
        writer.write(line)
        wait_until_full += 1
    assert wait_until_full >= 100
    for _ in range(9):
        writer.write(line * 3, 3)
    left_out = writer.left_out
    assert left_out == 28
    seen = b""
    while b"gap" not in seen:
        seen += os.read(reader, 1 << 16)
    assert seen.endswith(b"gap %d\n" % left_out)
    assert seen.count(line) == wait_until_full - 1
    writer.write(b"after\n")
    writer.close()
    assert os.read(reader, 100) == b"after\n"


def test_closing_does_not_wait_for_ever(pipe):
    """A daemon that is told to stop must stop, whoever does not read its log."""
    _reader, out = pipe
    writer = LineWriter(out)
    writer.write(b"x" * (1 << 20))
    started = time.monotonic()
    writer.close(timeout=0.05)
    assert time.monotonic() - started < 10
    writer.write(b"late\n")
    assert writer.left_out == 1
    os.set_blocking(_reader, False)
    wait_until(lambda: os.read(_reader, 1 << 20) or True)


def test_a_non_blocking_descriptor(pipe):
    """systemd and tmux share stderr with others, who may have made it non-blocking: no line may be cut by that."""
    reader, out = pipe
    os.set_blocking(out, False)
    writer = LineWriter(out)
    writer.write(b"x" * 300_000 + b"\n")
    seen = 0
    while seen < 300_001:
        seen += len(os.read(reader, 1 << 16))
    writer.close()
    assert writer.left_out == 0


def test_a_reader_that_went_away():
    """SIGPIPE or EPIPE of a log must not end the daemon."""
    reader, out = os.pipe()
    os.close(reader)
    writer = LineWriter(out)
    writer.write(b"a\nb\n", 2)
    wait_until(lambda: writer.left_out == 2)
    writer.close()
    os.close(out)


def test_gathered_lines_go_in_one_write_and_in_order(pipe):
    """If it failed, each outcome would wake the thread in the middle of the loop's work; or come out of order."""
    reader, out = pipe
    writer = LineWriter(out, gather=3600)
    writer.write(b"the first\n", gather=True)
    assert os.read(reader, 100) == b"the first\n"  # nothing came before: there is nothing to wait for
    for number in range(3):
        writer.write(b"%d\n" % number, gather=True)
    time.sleep(0.05)
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 100)
    os.set_blocking(reader, True)
    writer.write(b"at once\n")
    assert os.read(reader, 100) == b"0\n1\n2\nat once\n"
    writer.write(b"last\n", gather=True)
    writer.close()
    assert os.read(reader, 100) == b"last\n"


def test_gathered_lines_wait_for_a_moment_only(pipe):
    """If it failed, whoever follows the log of a quiet node would not see what became of a mail until the next one."""
    reader, out = pipe
    writer = LineWriter(out, gather=0.05)
    for _ in range(4):
        writer.write(b"a line\n", gather=True)
        assert os.read(reader, 100) == b"a line\n"
    writer.close()


def test_gathering_keeps_half_of_the_room(pipe):
    """If it failed, lines would be left out that could have been written long before."""
    reader, out = pipe
    writer = LineWriter(out, gather=3600, limit=1000)
    writer.write(b"the first\n")
    assert os.read(reader, 1000) == b"the first\n"
    wait_until(lambda: writer._size == 0)
    for _ in range(6):
        writer.write(b"x" * 99 + b"\n", gather=True)
    assert len(os.read(reader, 1000)) == 600
    writer.close()
    assert writer.left_out == 0


def test_a_gap_is_told_without_a_line_behind_it(pipe):
    """If it failed, lines would be missing from the log of a node that went quiet, and nothing would say so."""
    reader, out = pipe
    writer = LineWriter(out, limit=10, gap_line=lambda count: b"gap %d\n" % count)
    writer.write(b"far too long\n")
    assert os.read(reader, 100) == b"gap 1\n"
    writer.close()
