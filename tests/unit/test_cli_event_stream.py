"""Server-sent events, in pieces of any size."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mtactl.cli.event_stream import EventStream, ServerSentEvent

STREAM = (
    b"\xef\xbb\xbfretry: 2000\n\n: alive\n\n"
    b'id: 1\nevent: halt\ndata: {"a":"\xc3\xa9"}\n\n'
    b"id:2\r\nevent:two lines\r\ndata: one\r\ndata:two\r\n\r\n"
    b"data\r\rid: 3\nevent: no data\n\n"
    b"id: 4\0\ndata:  a space is kept\n\n"
    b"id: 5\ndata: cut off"
)
EVENTS = [
    ServerSentEvent(id="1", kind="halt", data='{"a":"é"}'),
    ServerSentEvent(id="2", kind="two lines", data="one\ntwo"),
    ServerSentEvent(id="2", kind="message", data=""),
    ServerSentEvent(id="3", kind="message", data=" a space is kept"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_the_seams_between_pieces_change_nothing(cuts):
    """Broken: events are lost, doubled or garbled depending on how the network cuts the stream."""
    stream = EventStream()
    places = [0, *sorted(cuts), len(STREAM)]
    found = [event for a, b in pairwise(places) for event in stream.feed(STREAM[a:b])]
    assert found == EVENTS


def test_octet_by_octet():
    """Broken: a CR LF or a UTF-8 sequence in two pieces is taken for two."""
    stream = EventStream()
    found = [event for octet in STREAM for event in stream.feed(bytes([octet]))]
    assert found == EVENTS
    assert stream.last_id == "5"


def test_a_stream_goes_on_where_another_ended():
    """Broken: after a reconnection without a new event, the next one starts from nothing."""
    stream = EventStream("41")
    assert not stream.begun
    assert list(stream.feed(b": alive\n\n")) == []
    assert stream.begun
    assert stream.last_id == "41"
