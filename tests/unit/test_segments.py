"""Segment files: what went in comes out, and damage of any kind is noticed."""

import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_store import segment_readers
from queue_store import segments as module
from queue_store.body_records import HEADER_SIZE, Record, pack_header, scan, segment_files, segment_path
from queue_store.errors import StoreCorrupt, StoreError, StoreFailed, StoreFull
from queue_store.segments import Segments

BODY = b"Subject: x\r\n\r\nhello\r\n.\r\n"


def open_segments(folder: Path, known: dict[int, int] | None = None, segment_size: int = 1 << 20) -> Segments:
    found = Segments(folder, segment_size=segment_size)
    found.recover(known or {})
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bodies"


@pytest.fixture
def segments(folder: Path):
    found = open_segments(folder)
    yield found
    found.close()


pieces = st.lists(
    st.binary(max_size=300).flatmap(lambda data: st.sampled_from([data, bytearray(data), memoryview(data)])), max_size=8
)


@given(bodies=st.lists(pieces, min_size=1, max_size=8), ids=st.randoms(use_true_random=False), sync=st.booleans())
def test_bodies_come_back_as_they_went_in(tmp_path_factory, bodies, ids, sync):
    """If a piece were lost, doubled or put in another order, a peer would get a mail that no one wrote."""
    folder = tmp_path_factory.mktemp("segments") / "bodies"
    segments = open_segments(folder, segment_size=400)
    stored = []
    for body in bodies:
        message_id = ids.randrange(1, 1 << 63)
        stored.append((*segments.append(message_id, body), message_id))
        if sync:
            segments.sync()
            segments.seal_if_full()
    segments.sync()
    for place, body in zip(stored, bodies, strict=True):
        assert segments.read(*place) == b"".join(body)
        assert segments.read_nowait(*place) in (None, b"".join(body))
    for segment, path in segment_files(folder).items():
        assert segments.length(segment) == path.stat().st_size
        assert list(scan(path)) == [Record(at, number, size, ok=True) for s, at, size, number in stored if s == segment]
    segments.close()


def test_more_pieces_than_one_call_takes(segments: Segments):
    """If IOV_MAX were not minded, a message received in many small pieces could never be stored."""
    body = [bytes([n % 251]) * (n % 7) for n in range(3 * os.sysconf("SC_IOV_MAX"))]
    place = segments.append(7, body)
    assert segments.read(*place, 7) == b"".join(body)


@pytest.mark.parametrize("most", [1, 3, 29, 1000])
def test_short_writes_are_continued(segments: Segments, monkeypatch: pytest.MonkeyPatch, most: int):
    """If a short write were taken for a whole one, an acknowledged body would end in the middle."""
    real = os.pwritev

    def write_some(fd, buffers, offset, flags=0):
        data = b"".join(buffers)[:most]
        return real(fd, [data], offset)

    monkeypatch.setattr(module.os, "pwritev", write_some)
    body = [b"a" * 10, b"", bytearray(b"b" * 500), memoryview(b"c" * 30)]
    place = segments.append(7, body)
    assert segments.read(*place, 7) == b"".join(body)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreFailed), (errno.EROFS, StoreFailed)],
)
def test_a_failed_append_leaves_nothing(segments: Segments, monkeypatch: pytest.MonkeyPatch, number, expected):
    """If half a record stayed after a full disk, the next one would stand at an offset that no one knows."""
    first = segments.append(1, [BODY])
    real = os.pwritev
    calls = []

    def fail_second(fd, buffers, offset, flags=0):
        calls.append(offset)
        if len(calls) == 2:
            raise OSError(number, os.strerror(number))
        return real(fd, [b"".join(buffers)[:5]], offset)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "pwritev", fail_second)
        with pytest.raises(expected):
            segments.append(2, [BODY])
    assert segments.length(segments.active) == HEADER_SIZE + len(BODY)
    assert segment_path(segments._folder, segments.active).stat().st_size == HEADER_SIZE + len(BODY)
    third = segments.append(3, [BODY])
    assert third[1] == HEADER_SIZE + len(BODY)
    assert segments.read(*first, 1) == segments.read(*third, 3) == BODY


def test_a_file_size_limit_is_a_failed_write(folder: Path):
    """If a real error of the kernel were met otherwise than a simulated one, the tests above would be worth nothing."""
    code = """
import resource, signal, sys
from pathlib import Path
from queue_store.errors import StoreFailed
from queue_store.segments import Segments
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
segments = Segments(Path(sys.argv[1]), segment_size=1 << 20)
segments.recover({})
first = segments.append(1, [b"x" * 500])
try:
    segments.append(2, [b"y" * 500])
except StoreFailed:
    segments.sync()
    assert segments.read(*first, 1) == b"x" * 500
    print(segments.length(1))
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(HEADER_SIZE + 500) == str(segment_path(folder, 1).stat().st_size)


def test_no_descriptor_left_passes(segments: Segments):
    """If running out of descriptors were taken for a broken disk, a rush of clients would stop the store for good."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 2, hard))
    try:
        with suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(StoreFull):
            segments.append(1, [BODY])
        os.close(held.pop())
        place = segments.append(1, [BODY])  # the one that is left is for writing; none is for reading ahead
        assert segments.read_nowait(*place, 1) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)
    assert segments.read(*place, 1) == BODY


def test_a_failed_sync_is_told(segments: Segments, monkeypatch: pytest.MonkeyPatch):
    """If a failed fsync went by, a 250 would be given for a body that no disk holds."""
    segments._write_durably = False
    segments.append(1, [BODY])

    def fail(fd):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fdatasync", fail)
        with pytest.raises(StoreFailed):
            segments.sync()
    segments.rollback()
    assert segments.length(segments.active) == 0


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_where_a_write_can_not_be_durable_it_is_synced(segments: Segments, monkeypatch: pytest.MonkeyPatch, number):
    """If it were taken for durable all the same, a power cut would take a body that was acknowledged."""
    real_write, real_sync = os.pwritev, os.fdatasync
    synced = []

    def write(fd, buffers, offset, flags=0):
        if flags:
            raise OSError(number, os.strerror(number))
        return real_write(fd, buffers, offset)

    def sync(fd):
        synced.append(os.fstat(fd).st_size)
        real_sync(fd)

    monkeypatch.setattr(module.os, "pwritev", write)
    monkeypatch.setattr(module.os, "fdatasync", sync)
    for messages in (1, 2):
        segments.append_all([(messages, [BODY])] * messages)
        segments.sync()
    size = HEADER_SIZE + len(BODY)
    assert synced == [size, 3 * size]


def test_a_durable_write_needs_no_sync(segments: Segments, monkeypatch: pytest.MonkeyPatch):
    """If each were synced again, a commit would wait for the disk twice; if one that was cut short were not, once too
    few.
    """
    real_write, real_sync = os.pwritev, os.fdatasync
    written, synced = [], []

    def write(fd, buffers, offset, flags=0):
        written.append(flags)
        most = 100 if len(written) == 3 else 1 << 20
        return real_write(fd, [b"".join(bytes(piece) for piece in buffers)[:most]], offset, flags)

    def sync(fd):
        synced.append(fd)
        real_sync(fd)

    monkeypatch.setattr(module.os, "pwritev", write)
    monkeypatch.setattr(module.os, "fdatasync", sync)
    places = []
    for messages in (1, 2, 3):
        places += segments.append_all([(7, [BODY])] * messages)
        segments.sync()
        assert len(synced) == (messages == 3)
    assert written == [os.RWF_DSYNC, os.RWF_DSYNC, os.RWF_DSYNC, 0]
    assert all(segments.read(segments.active, *place, 7) == BODY for place in places)


def test_a_new_file_is_synced_with_its_folder(segments: Segments, monkeypatch: pytest.MonkeyPatch):
    """If the folder were not synced, a power cut could take the whole file after the first 250."""
    synced = []
    real = os.fsync

    def note(fd):
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(module.os, "fsync", note)
    for number in range(3):
        segments.append(number, [BODY])
        segments.sync()
    assert synced == [str(segments._folder)]


def test_rollback_cuts_what_was_not_synced(segments: Segments):
    """If a failed commit left its bodies, each try on a full disk would make the disk fuller."""
    kept = segments.append(1, [BODY])
    segments.sync()
    before = segments.length(segments.active)
    segments.append(2, [BODY])
    segments.append(3, [BODY])
    segments.rollback()
    assert segments.length(segments.active) == before
    assert [record.message_id for record in scan(segment_path(segments._folder, segments.active))] == [1]
    # The commit of the index may also fail after the sync.
    segments.append(4, [BODY])
    segments.sync()
    segments.rollback(before)
    place = segments.append(5, [BODY])
    segments.sync()
    assert place[1] == before
    assert segments.read(*kept, 1) == segments.read(*place, 5) == BODY
    segments.rollback()
    assert segments.read(*place, 5) == BODY


def test_a_full_segment_is_sealed(folder: Path):
    """If segments were not sealed, disk space of dropped campaigns would never come back."""
    segments = open_segments(folder, segment_size=3 * (HEADER_SIZE + len(BODY)))
    sealed = []
    for number in range(1, 10):
        segments.append(number, [BODY])
        assert segments.seal_if_full() is None, "unsynced bodies are cut by rollback, so they stay in the active one"
        segments.sync()
        sealed.append(segments.seal_if_full())
    assert sealed == [None, None, 1, None, None, 2, None, None, 3]
    assert segments.active == 4
    assert segments.length(4) == 0
    with pytest.raises(StoreError):
        segments.unlink(4)
    segments.unlink(2)
    assert sorted(segment_files(folder)) == [1, 3]
    with pytest.raises(StoreCorrupt):
        segments.read(2, 0, len(BODY), 4)
    segments.close()


def test_torn_tails_are_cut_at_every_octet(tmp_path: Path):
    """If a tail that no commit vouches for were kept or cut short of it, a crash would corrupt what came before."""
    whole = tmp_path / "whole"
    segments = open_segments(whole)
    first = segments.append(1, [BODY])
    segments.append(2, [BODY])
    segments.sync()
    segments.close()
    content = segment_path(whole, 1).read_bytes()
    record = len(content) // 2
    for length in range(len(content) + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        path = segment_path(folder, 1)
        path.write_bytes(content[:length])
        found = list(scan(path))
        assert [r.message_id for r in found if r.ok] == [1, 2][: length // record]
        assert all(not r.ok for r in found[length // record :]), "the rest of a torn record is none"
        assert len(found) == -(-length // record)
        again = Segments(folder, segment_size=1 << 20)
        repairs = again.recover({1: record})
        if length > record:
            assert repairs == [f"segment 1: cut {length - record} octets that no commit vouches for"]
        elif length < record:
            assert repairs == [f"segment 1 is too short: {length} of {record} octets are there"]
        else:
            assert repairs == []
        if length < record:
            with pytest.raises(StoreCorrupt):
                again.read(*first, 1)
        else:
            assert path.stat().st_size == record
            assert again.read(*first, 1) == BODY
        assert again.active == 2
        again.close()


def test_recovery_removes_what_the_index_does_not_know(tmp_path: Path):
    """If an orphan stayed, its space would be lost; if a foreign file went, someone's data would be."""
    folder = tmp_path / "bodies"
    segments = open_segments(folder, segment_size=1)
    for number in (1, 2, 3):
        segments.append(number, [BODY])
        segments.sync()
        segments.seal_if_full()
    segments.close()
    (folder / "notes.txt").write_text("not ours")
    length = HEADER_SIZE + len(BODY)
    again = Segments(folder, segment_size=1)
    assert again.recover({1: length, 9: 70, 8: 0}) == [
        f"segment 9 is missing, with {70} octets of bodies",
        f"segment 2 ({length} octets) belongs to no message: removed",
        f"segment 3 ({length} octets) belongs to no message: removed",
    ]
    assert sorted(entry.name for entry in folder.iterdir()) == ["00000001.seg", "notes.txt"]
    assert again.active == 10
    assert again.append(5, [BODY])[0] == 10
    again.close()


def test_every_flipped_bit_is_detected(folder: Path):
    """If one flipped bit could pass, a damaged mail would be delivered as if it were whole."""
    segments = open_segments(folder)
    places = [(*segments.append(number, [BODY]), number) for number in (1, 2, 3)]
    segments.sync()
    path = segment_path(folder, 1)
    sound = path.read_bytes()
    record = HEADER_SIZE + len(BODY)
    for bit in range(8 * record, 16 * record):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        with pytest.raises(StoreCorrupt) as caught:
            segments.read(*places[1])
        assert caught.value.path == str(path)
        found = list(scan(path))
        assert [r for r in found if r.ok] == [
            Record(0, 1, len(BODY), ok=True),
            Record(2 * record, 3, len(BODY), ok=True),
        ]
        assert [r.offset for r in found] == [0, record, 2 * record], "damage is one stretch, and the walk goes on"
    segments.close()


@given(data=st.binary(max_size=200), where=st.integers(0, 200), head=st.booleans())
def test_the_walk_ends_on_anything(tmp_path_factory, data, where, head):
    """If the walk could fail or run on for ever on some content, fsck would be no help on a broken disk."""
    path = tmp_path_factory.mktemp("scan") / "00000001.seg"
    if head:
        data = data[:where] + pack_header(1, len(data[:where]), 5, 1 << 62, 0) + data[where:]
    path.write_bytes(data)
    found = list(scan(path))
    assert all(record.size >= 0 for record in found)
    if found:
        assert found[0].offset == 0
        for one, other in itertools.pairwise(found):
            assert other.offset == one.offset + one.size + (HEADER_SIZE if one.message_id else 0)


def test_a_record_elsewhere_is_not_taken(tmp_path: Path):
    """If a record were believed wherever it stands, a body that holds the octets of another could pass for it."""
    folder = tmp_path / "bodies"
    segments = open_segments(folder)
    place = segments.append(1, [BODY])
    record = segment_path(folder, 1).read_bytes()
    outer = segments.append(2, [b"hello\r\n", record, b".\r\n"])
    with pytest.raises(StoreCorrupt):
        segments.read(1, outer[1] + HEADER_SIZE + 7, len(BODY), 1)
    segment_path(folder, 2).write_bytes(record)
    with pytest.raises(StoreCorrupt):
        segments.read(2, 0, len(BODY), 1)
    for wrong in [(1, 0, len(BODY), 2), (1, 0, len(BODY) - 1, 1), (1, 1, len(BODY), 1), (1, 1 << 40, len(BODY), 1)]:
        with pytest.raises(StoreCorrupt):
            segments.read(*wrong)
        with suppress(StoreCorrupt):
            # Past the end it can't tell "not in memory" from "not there".
            assert segments.read_nowait(*wrong) is None
    assert segments.read(*place, 1) == BODY
    segments.close()


def test_nowait_declines_rather_than_waits(segments: Segments, monkeypatch: pytest.MonkeyPatch):
    """If it waited, one cold body would hold up every session of the daemon."""
    place = segments.append(1, [BODY])
    large = segments.append(2, [bytes(1 << 20)])
    assert segments.read_nowait(*large, 2) is None
    assert segments.read_nowait(9, 0, 5, 1) is None, "a segment that is not open: opening may wait"

    def answer(result):
        def preadv(*args):
            if isinstance(result, int):
                return result
            raise result

        return preadv

    with monkeypatch.context() as patch:
        for result in (BlockingIOError(errno.EAGAIN, ""), 5, OSError(errno.EIO, "")):
            patch.setattr(module.os, "preadv", answer(result))
            assert segments.read_nowait(*place, 1) is None
    assert segments._nowait
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "preadv", answer(OSError(errno.EOPNOTSUPP, "")))
        assert segments.read_nowait(*place, 1) is None
    assert not segments._nowait, "a file system that can't tell is not asked again"
    assert segments.read_nowait(*place, 1) is None
    assert segments.read(*place, 1) == BODY


def test_records_in_a_row_are_read_together(segments: Segments, monkeypatch: pytest.MonkeyPatch):
    """If it failed, each body of a full lane would cost a system call, and a wait for the interpreter's lock."""
    bodies = [bytes([65 + number % 26]) * (9_000 + number) for number in range(60)]
    places = [(*segments.append(number, [body]), number) for number, body in enumerate(bodies, 1)]
    calls = []
    real = os.preadv
    monkeypatch.setattr(module.os, "preadv", lambda *args: calls.append(args) or real(*args))
    assert [segments.read_nowait(*place) for place in places] == bodies
    assert len(calls) < len(bodies) / 4
    calls.clear()
    backwards = places[::-2]
    assert [segments.read_nowait(*place) for place in backwards] == bodies[::-2]
    assert all(sum(map(len, buffers)) < 10_000 for _, buffers, *_ in calls), "what does not follow is not read ahead"


def test_what_was_read_ahead_and_then_rolled_back_is_read_again(segments: Segments):
    """If it failed, a commit that failed once would make the next body in its place look damaged."""
    first = (*segments.append(1, [b"a" * 500]), 1)
    second = (*segments.append(2, [b"b" * 500]), 2)
    length = segments.length(segments.active)
    lost = (*segments.append(3, [b"c" * 500]), 3)
    assert segments.read_nowait(*first) is not None
    assert segments.read_nowait(*second) is not None  # reads ahead, over the third
    segments.rollback(length)
    instead = (*segments.append(4, [b"d" * 400]), 4)
    assert instead[:2] == lost[:2]
    assert segments.read_nowait(*instead) == b"d" * 400
    assert segments.read_nowait(*lost) is None


def test_readers_and_unlink_in_threads(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """If a descriptor were closed under a reader, it would read another file's octets, or fail."""
    monkeypatch.setattr(segment_readers, "_OPEN_READERS", 2)
    monkeypatch.setattr(segment_readers.SegmentReaders.__init__, "__defaults__", (2,))
    segments = open_segments(folder, segment_size=1)
    places = []
    for number in range(1, 41):
        places.append((*segments.append(number, [BODY, bytes(100 * number)]), number))
        segments.sync()
        segments.seal_if_full()
    failures = []
    gone = threading.Event()

    def read_all():
        try:
            for _ in range(10):
                for place in places:
                    try:
                        body = segments.read(*place)
                        segments.read_nowait(*place)
                    except StoreCorrupt:
                        if place[0] % 2 == 0 or not gone.is_set():
                            raise
                    else:
                        assert body == BODY + bytes(100 * place[3])
        except BaseException as error:
            failures.append(error)

    before = len(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    gone.set()
    for segment in range(1, 41, 2):
        segments.unlink(segment)
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(segments._readers._cache) <= 2
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    segments.close()
    assert open_in(folder) == []


def open_in(folder: Path) -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [target for target in found if target.startswith(str(folder))]


def test_a_killed_process_loses_nothing_that_was_synced(folder: Path):
    """If a kill lost synced records, or recovery touched them, a 250 would have been a lie."""
    code = """
import sys
from pathlib import Path
from queue_store.segments import Segments
segments = Segments(Path(sys.argv[1]), segment_size=20_000)
segments.recover({})
number = 0
while True:
    places = []
    for _ in range(5):
        number += 1
        places.append((*segments.append(number, [b"x" * (number % 500)]), number))
    segments.sync()
    for place in places:
        print(*place)
    sys.stdout.flush()
    segments.seal_if_full()
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(300)]
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read()
    child.wait()
    child.stdout.close()
    lines += (rest[: rest.rfind("\n") + 1]).splitlines()
    places = [tuple(map(int, line.split())) for line in lines]
    known: dict[int, int] = {}
    for segment, offset, size, _ in places:
        known[segment] = max(known.get(segment, 0), offset + HEADER_SIZE + size)
    again = Segments(folder, segment_size=20_000)
    assert not any("missing" in repair or "short" in repair for repair in again.recover(known))
    assert len(places) >= 300
    for place in places:
        assert again.read(*place) == b"x" * (place[3] % 500)
    again.close()


def test_append_before_recover_is_refused(folder: Path):
    """If it were not, a new body could be written into a file that the index knows otherwise."""
    with pytest.raises(StoreError):
        Segments(folder, segment_size=1).append(1, [BODY])


def test_scan_wants_a_segment_file(tmp_path: Path):
    """If any name did, records could not be bound to their place."""
    with pytest.raises(ValueError):
        list(scan(tmp_path / "other"))
