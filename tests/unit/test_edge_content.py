"""A message while it is received: the same whatever the pieces, and never mended."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtactl.edge.content import Content, MemoryBudget

TRACE = b"Received: from x\r\n\tby y; z\r\n"


def make(*, max_size=10_000, max_line=1000, memory=1 << 20):
    budget = MemoryBudget(memory)
    return Content(TRACE, max_size=max_size, max_line=max_line, budget=budget), budget


def feed(content, pieces):
    """Feed until the end is found; give the rest, with the pieces that were not fed."""
    for number, piece in enumerate(pieces):
        rest = content.feed_data(piece)
        if rest is not None:
            return bytes(rest) + b"".join(pieces[number + 1 :])
    return None


def split(data, cuts):
    points = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(points)]


OCTETS = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"\r\n.\r\n", b"\r\n..", b"X: y", b"\xc3\xa9", b"\x00"]),
    max_size=40,
).map(b"".join)


@given(OCTETS, st.data())
def test_data_ends_where_the_standard_says(octets, data):
    """If this fails, a server and the one before it see different messages: SMTP smuggling."""
    stream = octets + b"\r\n.\r\nQUIT\r\n"
    end = (b"\r\n" + stream).find(b"\r\n.\r\n") + 3  # of the message, in the stream
    whole = stream[:end]
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    content, budget = make()
    assert feed(content, split(stream, cuts)) == stream[end:]
    bare = whole.replace(b"\r\n", b"")
    if b"\r" in bare or b"\n" in bare or b"\x00" in bare:
        assert content.problem is not None
        assert (content.problem.code, content.problem.enhanced) == (550, "5.6.0")
        assert budget.used == 0
    else:
        assert content.problem is None
        assert bytes(content.body) == TRACE + whole
        assert content.eight_bit == (not whole.isascii())
        assert budget.used == len(content.body)
    content.release()
    content.release()
    assert budget.used == 0


@given(OCTETS, st.data())
def test_chunks_come_out_as_data_would(octets, data):
    """If this fails, a line that begins with a dot is lost or doubled, or ends the message on its way to the peer."""
    cuts = data.draw(st.lists(st.integers(0, len(octets)), max_size=8))
    content, budget = make()
    for piece in split(octets, cuts):
        content.feed_chunk(piece)
    content.end_chunks()
    bare = octets.replace(b"\r\n", b"")
    if b"\r" in bare or b"\n" in bare or b"\x00" in bare:
        assert content.problem is not None
        assert content.problem.code == 550
    else:
        assert content.problem is None
        lines = octets.split(b"\r\n")
        if lines[-1] == b"":
            lines.pop()
        stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
        assert bytes(content.body) == TRACE + stuffed + b".\r\n"
        assert content.raw_size == len(octets)
    content.release()
    assert budget.used == 0


@pytest.mark.parametrize(
    "not_the_end",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\n\n.\r\n",
        b"\r\n\x00.\r\n",
        b"\r\n.\r\r\n",
        b"\r\n..\r\n",
        b"\r\n. \r\n",
        b"\r\r\n.\n",
        b"\n.\r",
    ],
)
def test_nothing_else_ends_data(not_the_end):
    """If this fails, a client can hide a second message with another sender inside the first one."""
    smuggled = b"MAIL FROM:<admin@example.com>\r\n"
    stream = b"Subject: x\r\n\r\ntext" + not_the_end + smuggled + b"text\r\n.\r\nQUIT\r\n"
    for pieces in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        content, _ = make()
        assert feed(content, pieces) == b"QUIT\r\n"
        clean = not_the_end.replace(b"\r\n", b"")
        if b"\r" in clean or b"\n" in clean or b"\x00" in clean:
            assert content.problem is not None
        else:
            assert bytes(content.body) == TRACE + stream[: -len(b"QUIT\r\n")]


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_size_counts_neither_the_final_dot_nor_doubled_ones(piece):
    """If this fails, a message that the client measured as fitting is refused, or one that does not is taken."""
    text = (b"." + b"x" * 7 + b"\r\n") * 100
    wire = text.replace(b"\r\n.", b"\r\n..")
    wire = b"." + wire + b".\r\n"
    pieces = [wire[at : at + piece] for at in range(0, len(wire), piece)]
    for limit, fits in ((len(text), True), (len(text) - 1, False)):
        content, budget = make(max_size=limit)
        assert feed(content, pieces) == b""
        assert (content.problem is None) == fits
        if not fits:
            assert content.problem.code == 552
            assert budget.used == 0
        chunks, _ = make(max_size=limit)
        for start in range(0, len(text), piece):
            chunks.feed_chunk(text[start : start + piece])
        chunks.end_chunks()
        assert (chunks.problem is None) == fits


@pytest.mark.parametrize("piece", [1, 999, 1000, 1001, 100_000])
@pytest.mark.parametrize(
    ("line", "fits"),
    [
        (b"x" * 998 + b"\r\n", True),
        (b"x" * 999 + b"\r\n", False),
        (b"." + b"." + b"x" * 997 + b"\r\n", True),
        (b"." + b"." + b"x" * 998 + b"\r\n", False),
        (b"x" * 5000 + b"\r\n", False),
    ],
)
def test_lines_are_limited(line, fits, piece):
    """If this fails, peers refuse or cut what we took; or the dot that transparency adds breaks a good line."""
    wire = b"short\r\n" + line + b"short\r\n" + line + b"\r\n.\r\n"
    content, _ = make(max_size=100_000)
    assert feed(content, [wire[at : at + piece] for at in range(0, len(wire), piece)]) == b""
    assert (content.problem is None) == fits
    if not fits:
        assert (content.problem.code, content.problem.enhanced) == (550, "5.6.0")


def test_memory_is_bounded_while_a_bad_message_is_read():
    """If this fails, whoever sends a message without an end takes the daemon's memory."""
    for opening in (b"\n", b"x" * 2000, b""):
        content, budget = make(max_size=10_000)
        assert content.feed_data(opening) is None
        for _ in range(1000):
            assert content.feed_data(b"y" * 100 + b"\r\n") is None
            assert len(content.body) < 20_000
        assert content.problem is not None
        assert len(content.body) <= 4
        assert budget.used == 0
        assert content.feed_data(b"\r\n.\r\nNOOP") == b"NOOP"


def test_messages_share_one_budget():
    """If this fails, many clients together take more memory than the administrator allowed."""
    budget = MemoryBudget(1000)
    first = Content(TRACE, max_size=10_000, max_line=1000, budget=budget)
    second = Content(TRACE, max_size=10_000, max_line=1000, budget=budget)
    first.feed_data(b"x" * 600 + b"\r\n")
    second.feed_data(b"x" * 600 + b"\r\n")
    assert first.problem is None
    assert second.problem is not None
    assert (second.problem.code, second.problem.enhanced) == (452, "4.3.1")
    assert budget.has_room(300)
    assert not budget.has_room(500)
    first.release()
    assert budget.used == 0
