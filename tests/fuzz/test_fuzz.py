"""The short form of each fuzz target: seeds, what once failed, and a few thousand inputs made by chance."""

import encodings
import importlib
import time

import pytest

from tests.fuzz import edge, headers, peer, reference
from tests.fuzz.control import fuzz_control
from tests.fuzz.inputs import found
from tests.fuzz.mutation import mutants

# A few seconds each.
COUNTS = {"edge": 1500, "peer": 1200, "headers": 10_000}


@pytest.mark.parametrize("name", COUNTS)
def test_inputs_that_once_failed(name):
    """If this fails, a bug that was found by fuzzing is back."""
    target = importlib.import_module(f"tests.fuzz.{name}")
    for data in (*target.SEEDS, *found(name).values()):
        target.check(data)


@pytest.mark.parametrize("name", COUNTS)
def test_inputs_made_by_chance(name):
    """If this fails, octets of a stranger are taken for what they are not: the sentence says which, and what of it."""
    target = importlib.import_module(f"tests.fuzz.{name}")
    for number, data in enumerate(mutants(target.SEEDS, target.WORDS, count=COUNTS[name], seed=20_261_128)):
        try:
            target.check(data)
        except BaseException as error:
            error.add_note(f"input {number}, to be kept in tests/fuzz/found/{name}: {data!r}")
            raise


def test_control_api_answers_as_described():
    """If this fails, the OpenAPI document says what is not so, or a request can break the daemon."""
    assert fuzz_control(0, 1)


@pytest.mark.parametrize(
    ("target", "place", "defect"),
    [
        (edge, "mtactl.edge.content.END", b".\r\n"),
        (peer, "mtactl.relay.replies.MAX_LINES", 1000),
        (headers, "mtactl.message.headers.MAX_HOPS", 200),
    ],
)
def test_targets_find_what_is_wrong(monkeypatch, target, place, defect):
    """If this fails, the targets look away: each is shown a defect here, and has to find it."""
    monkeypatch.setattr(place, defect)

    def check_all():
        for data in target.SEEDS:
            target.check(data)

    with pytest.raises(AssertionError):
        check_all()


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b".\r\nx", 3),
        (b"a\r\n.\r\nx", 6),
        (b"..\r\n.\r\n", 7),
        (b"a\n.\r\n", None),
        (b"\r.\r\n", None),
        (b"\r\r\n.\r\n", 6),
        (b"\r\n.\r\r\n.\r\n", 9),
        (b"\r\n.\n.\r\n", None),
        (b"", None),
    ],
)
def test_second_opinion_on_the_end_of_data(text, end):
    """If this fails, what the edge is compared with is wrong itself."""
    assert reference.end_of_data(text, 0) == end


def cpu(scan, data: bytes) -> float:
    """Give the seconds of CPU of the fastest of five scans."""
    times = []
    for _ in range(5):
        before = time.thread_time()
        scan(data)
        times.append(time.thread_time() - before)
    return min(times)


@pytest.mark.parametrize(
    "piece",
    [
        b"X-Job",
        b"X-Job:",
        b"X-Job" + b" " * 50,
        b"X-Job: a\r\n ",
        b"\r\n.",
        b"\r\n \r\n.X-Job \t",
        b"Received",
        b"Received: x\r\n ",
        b"x" * 70 + b"\r\n",
        b"X-Job: =?utf-8?q?a",
        b" ",
        b"\xff",
    ],
)
def test_header_scan_does_not_grow_faster_than_the_section(piece):
    """If this fails, one message of a quarter of a megabyte can stop the daemon for seconds.

    CPU time, of which eight times the octets may take twenty-four times as much: squared, it would be sixty-four.
    """
    scan = headers._READERS[0].read
    small, large = (piece * (octets // len(piece)) for octets in (30 << 10, 240 << 10))
    assert cpu(scan, large) < 24 * cpu(scan, small) + 0.001


def test_names_of_character_sets_are_not_kept(monkeypatch):
    """If this fails, a sender fills the memory: Python remembers each name of a codec that it was ever asked for."""
    monkeypatch.setattr(encodings, "_cache", cache := dict(encodings._cache))
    before = len(cache)
    for number in range(50):
        message = b"X-Job: =?no-such-%d?q?c1?=\r\n\r\n.\r\n" % number
        assert headers._READERS[0].read(message).code == 550
    assert len(encodings._cache) == before
