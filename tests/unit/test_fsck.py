"""fsck: what is right is left in peace, and each thing that is wrong is found and named."""

import asyncio
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from queue_store import fsck
from queue_store.body_records import HEADER_SIZE, segment_files
from queue_store.errors import StoreLocked
from queue_store.fsck import Finding, Severity, check, main
from queue_store.fsck_log import check_log
from queue_store.mending import INDEX, LOG
from queue_store.page_image import PageImage
from queue_store.records import HaltRequest, NewMessage, NewRecipient, Outcome, QueueFilter, Settlement
from queue_store.store import QueueStore

SECOND = 1_000_000


async def fill(path: Path, *, while_open: Callable[[], None] | None = None) -> None:
    """Make a store with something of everything in it."""
    clock = 1_000 * SECOND
    store = await QueueStore.open(path, reserve=4096, segment_size=1500, now=lambda: clock)

    async def append(campaign: str, lane: str, number: int, *, due: int | None = None) -> None:
        recipients = [NewRecipient(address=f"u{at}@{lane}", lane=lane, due=due) for at in range(number)]
        body = [b"Subject: %s\r\n\r\n" % campaign.encode(), b"text\r\n" * 40, b".\r\n"]
        await store.append(
            NewMessage(campaign=campaign, reverse_path="", received_at=clock, body=body, recipients=recipients)
        )

    for _ in range(5):
        await append("c1", "one.example", 4)
        await append("", "one.example", 1)
        await append("c2", "two.example", 2)
        await append("c1", "two.example", 2, due=clock + 60 * SECOND)
    page = await store.claim("one.example", limit=15)
    outcomes = [Outcome.DELIVERED, Outcome.BOUNCED, None, Outcome.DELIVERED]
    for claim in page.claims:
        await store.settle(
            [
                Settlement(
                    recipient_id=recipient.id,
                    message_id=claim.message.id,
                    campaign=claim.message.campaign,
                    outcome=outcomes[recipient.id % 4],
                    at=clock,
                    due=clock + 30 * SECOND,
                    code=250,
                    reply="2.0.0 Ok",
                )
                for recipient in claim.recipients
            ]
        )
    await store.record_halt(HaltRequest(campaign="c2", closed_at=clock, in_flight=0))
    await store.drop_campaign("c2", limit=100)
    for step in ("queue_dropped", "in_flight_finished", "completed"):
        await store.record_halt_step("c2", step, clock)
    await store.record_hold("c3", held=True, uid=0, user="root")
    await store.drop(QueueFilter(campaign="c1", message_id=page.claims[-1].message.id))
    if while_open is not None:
        while_open()
    await store.close()


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store closed in order; not to be changed."""
    path = tmp_path_factory.mktemp("closed") / "store"
    asyncio.run(fill(path))
    return path


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store as a killed process leaves it, with a log; not to be changed."""
    folder = tmp_path_factory.mktemp("killed")
    path = folder / "store"
    copy = folder / "copy"
    ignored = shutil.ignore_patterns("*-shm")
    asyncio.run(fill(path, while_open=lambda: shutil.copytree(path, copy, ignore=ignored) and None))
    return copy


@pytest.fixture
def store(closed: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(closed, tmp_path / "store"))


def errors(path: Path) -> list[str]:
    return [f"{found.where}: {found.what}" for found in check(path) if found.severity is Severity.ERROR]


def state_of(path: Path) -> dict[str, tuple[str, int]]:
    return {
        str(file.relative_to(path)): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def change(path: Path, *statements: str) -> None:
    with closing(apsw.Connection(str(path / fsck.INDEX))) as db:
        for statement in statements:
            db.execute(statement)
            assert db.changes() > 0, statement


def value(path: Path, sql: str) -> int:
    with closing(apsw.Connection(str(path / fsck.INDEX))) as db:
        row = db.execute(sql).fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.parametrize("which", ["closed", "killed"])
def test_a_sound_store_is_clean_and_left_alone(which: str, request: pytest.FixtureRequest):
    """If fsck cried wolf no one would heed it; if it wrote, a check could be what breaks a store."""
    path: Path = request.getfixturevalue(which)
    before = state_of(path)
    assert any(name.endswith("-wal") and content for name, content in before.items()) or which == "closed"
    assert check(path) == []
    assert state_of(path) == before


def test_the_log_is_read(killed: Path, tmp_path: Path):
    """If the log were passed over, fsck would check a state of the books that is long gone."""
    copy = Path(shutil.copytree(killed, tmp_path / "copy"))
    (copy / f"{fsck.INDEX}-wal").unlink()
    assert check(copy) != []


def test_a_store_in_use_is_not_checked(store: Path):
    """If it were, each mail that comes in meanwhile would look like damage."""
    fd = os.open(store / fsck.LOCK, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(StoreLocked):
            check(store)
        assert main([str(store)]) == 2
    finally:
        os.close(fd)
    assert check(store) == []


NAMED = [
    ("UPDATE campaigns SET accepted = accepted + 1 WHERE name = 'c1'", "campaign c1: 31 were accepted, but "),
    ("UPDATE campaigns SET delivered = delivered - 1 WHERE name = 'c1'", "campaign c1: its count says "),
    ("UPDATE campaigns SET dropped = 99 WHERE name = 'c2'", "campaign c2: 10 were accepted, but 0 wait and 99 have"),
    ("UPDATE campaigns SET unknown = -1 WHERE name = 'c3'", "campaign c3: a count of it is less than none"),
    ("UPDATE campaigns SET delivered_after_stop = 50 WHERE id = 0", "mail of no campaign: a count of it is less"),
    ("UPDATE campaigns SET deferred = deferred + 1 WHERE name = 'c1'", "campaign c1: its count says"),
    ("UPDATE campaigns SET scheduled = 0 WHERE name = 'c1'", "campaign c1: its count says 0 scheduled, but "),
    ("UPDATE campaigns SET name = 'c4' WHERE id = 0", "campaigns: row 0, which stands for mail of no campaign"),
    ("DELETE FROM campaigns WHERE name = 'c2'", "10 outcomes belong to it, but there is no such campaign"),
    ("DELETE FROM recipients WHERE id = (SELECT min(id) FROM recipients)", " wait and "),
    ("DELETE FROM messages WHERE id = (SELECT max(id) FROM messages)", "it is gone, but 2 of its recipients wait"),
    (
        "UPDATE messages SET live = live + 1 WHERE id = (SELECT max(id) FROM messages)",
        "3 of its recipients wait, but 2",
    ),
    ("UPDATE messages SET recipients = 1 WHERE id = (SELECT max(id) FROM messages)", "which has 1 recipients"),
    ("UPDATE messages SET recipients = 70 WHERE id = (SELECT min(id) FROM messages)", "into those of message"),
    (
        "UPDATE outcomes SET outcome = 2 WHERE id = (SELECT max(id) FROM outcomes WHERE outcome = 4)",
        "bounced, but there are",
    ),
    ("UPDATE outcomes SET outcome = 9 WHERE id = (SELECT max(id) FROM outcomes)", "its outcome is 9, which is none"),
    (
        "INSERT INTO outcomes SELECT campaign_id, id, 1, 1, '', 1, 0, 0, 0, 250, '', '' FROM recipients LIMIT 1",
        "the id is there 2 times",
    ),
    ("UPDATE outcomes SET message_id = id + 5 WHERE id = (SELECT min(id) FROM outcomes)", "is not one of its message"),
    ("UPDATE recipients SET state = 7 WHERE id = (SELECT min(id) FROM recipients)", "its state is 7"),
    ("UPDATE recipients SET due = NULL WHERE state = 2", "its state is 2 and the time at which it is due is not set"),
    ("UPDATE recipients SET lane_id = 99 WHERE id = (SELECT min(id) FROM recipients)", "its lane 99 is not there"),
    (
        "UPDATE recipients SET campaign_id = 0 WHERE id = (SELECT max(id) FROM recipients)",
        "it is filed under campaign row 0, but its message ",
    ),
    ("UPDATE recipients SET state = 3 WHERE state = 0", "it says that the store was closed in order, but "),
    ("UPDATE meta SET value = 5 WHERE key = 'next_id'", "the next id, 5, is not above "),
    ("DELETE FROM meta WHERE key = 'next_id'", "the next id, missing, is not above "),
    ("UPDATE segments SET live_messages = live_messages + 1 WHERE id = 1", "segment 1: its row says "),
    ("UPDATE segments SET live_bytes = live_bytes - 1 WHERE id = 1", "segment 1: its row says "),
    ("UPDATE segments SET length = 100 WHERE id = (SELECT max(segment) FROM messages)", "the index vouches for"),
    ("DELETE FROM segments WHERE id = 1", "have their bodies in it, but the index does not know it"),
    ("UPDATE messages SET offset = offset + 1 WHERE id = (SELECT min(id) FROM messages)", "has no sound header"),
    ("UPDATE halts SET queue_dropped_at = NULL", "campaign c2: its halt is completed, but a step before that was not"),
    (
        "UPDATE campaigns SET began = 1 WHERE name = 'c2'",
        "campaign c2: its halt is a cancel, but a transaction of it had",
    ),
    ("UPDATE halts SET kind = 'pause'", "campaign c2: its halt is a pause, but a transaction of it never began"),
]


@pytest.mark.parametrize(("statement", "expected"), NAMED)
def test_books_that_do_not_add_up_are_named(store: Path, statement: str, expected: str):
    """If a wrong count or row went by, an operator would be told something that is not so."""
    change(store, statement)
    assert any(expected in found for found in errors(store)), errors(store)
    assert main([str(store)]) == 1


def test_a_completed_halt_with_mail_left_is_named(store: Path):
    """If it went by, a report that says "completed" could still have mail behind it."""
    halted = value(store, "SELECT id FROM campaigns WHERE name = 'c1'")
    change(store, f"UPDATE halts SET campaign_id = {halted}")
    assert any("campaign c1: its halt is completed, but " in found for found in errors(store))


def test_many_of_a_kind_are_counted(store: Path):
    """If each were told, the one that explains them would not be seen."""
    change(store, "UPDATE recipients SET lane_id = 99")
    told = [found for found in errors(store) if "its lane 99 is not there" in found]
    assert len(told) == 21
    assert "more like that" in told[-1]


def test_pruned_outcomes_are_not_missed(store: Path):
    """If they were, each store older than `keep_outcomes` would be called damaged."""
    change(store, "DELETE FROM outcomes WHERE campaign_id = (SELECT id FROM campaigns WHERE name = 'c2')")
    with closing(apsw.Connection(str(store / fsck.INDEX))) as db:
        db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('pruned', 1)")
    assert errors(store) == []
    change(store, "UPDATE meta SET value = 0 WHERE key = 'pruned'")
    assert errors(store) == ["queue.db, campaign c2: its count says 10 dropped, but there are 0 such outcomes"]


def test_a_flipped_bit_in_a_body_is_named(store: Path):
    """If it went by until the mail is due, there would be no time left to take it from a backup."""
    for segment, path in segment_files(store / fsck.BODIES).items():
        living = {
            offset: (number, size)
            for number, offset, size in apsw.Connection(str(store / fsck.INDEX)).execute(
                "SELECT id, offset, size FROM messages WHERE segment = ?", (segment,)
            )
        }
        sound = path.read_bytes()
        for octet in range(0, len(sound), 41):
            damaged = bytearray(sound)
            damaged[octet] ^= 1 << (octet % 8)
            path.write_bytes(damaged)
            expected = [
                f"{path.name}, octet {offset}: the body of message {number} "
                for offset, (number, size) in living.items()
                if offset <= octet < offset + HEADER_SIZE + size
            ]
            found = errors(store)
            assert len(found) == len(expected)
            assert all(one.startswith(other) for one, other in zip(found, expected, strict=True))
        path.write_bytes(sound)
    assert errors(store) == []


def test_missing_and_cut_segments_are_named(store: Path):
    """If a lost file were found only mail by mail, no one would see that it was one file."""
    files = segment_files(store / fsck.BODIES)
    first = files[
        value(
            store,
            "SELECT segment FROM messages GROUP BY segment HAVING max(offset + size + 28) = "
            "(SELECT length FROM segments WHERE id = segment) ORDER BY segment LIMIT 1",
        )
    ]
    last = files[value(store, "SELECT max(segment) FROM messages")]
    assert first != last
    last.rename(last.with_suffix(".lost"))
    os.truncate(first, first.stat().st_size - 1)
    found = errors(store)
    assert any(one.startswith(f"{last.name}: the file is missing, with the bodies of ") for one in found)
    assert any(one.startswith(f"{first.name}: it has ") and "the index vouches for" in one for one in found)
    assert any(one.endswith("does not fit its checksum") for one in found)


def test_what_a_crash_leaves_is_a_note(store: Path, capsys: pytest.CaptureFixture[str]):
    """If it were an error, every crash would call for a person; if it were nothing, lost space would go unseen."""
    first = next(iter(segment_files(store / fsck.BODIES).values()))
    with first.open("ab") as file:
        file.write(b"torn")
    (store / fsck.BODIES / "00009999.seg").write_bytes(b"x" * 10)
    assert check(store) == [
        Finding(severity=Severity.NOTE, where=first.name, what="its last 4 octets are of no commit"),
        Finding(
            severity=Severity.NOTE,
            where="00009999.seg",
            what="the index does not know the file: its 10 octets belong to no message",
        ),
    ]
    assert main([str(store)]) == 0
    assert capsys.readouterr().out.endswith("0 errors, 2 notes\n")


def test_damage_in_the_index_is_found(store: Path):
    """If SQLite's own damage stopped the check with a traceback, it would say nothing of what is left."""
    path = store / fsck.INDEX
    sound = path.read_bytes()
    page = 4096
    for number in range(1, len(sound) // page):
        damaged = bytearray(sound)
        damaged[number * page : number * page + 200] = bytes(200)
        path.write_bytes(damaged)
        check(store)  # a page may be free: then there is nothing to find, but never anything else than findings
    for content in (b"x" * len(sound), sound[: 3 * page], b"SQLite format 3\0" + bytes(5000)):
        path.write_bytes(content)
        assert errors(store) != []


def test_each_damaged_page_of_rows_is_found(store: Path):
    """If a lost page of rows went by, so would the mails in it."""
    path = store / fsck.INDEX
    with closing(apsw.Connection(str(path))) as db:
        roots = dict(db.execute("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0"))
    sound = path.read_bytes()
    for name in ("campaigns", "messages", "recipients", "outcomes", "segments", "meta", "ready", "due", "claimed"):
        damaged = bytearray(sound)
        at = (roots[name] - 1) * 4096
        damaged[at] ^= 0x40
        path.write_bytes(damaged)
        assert errors(store) != [], name


def test_damage_in_the_log_is_named(killed: Path, tmp_path: Path):
    """If it went by as SQLite lets it, acknowledged commits would be gone and no one would know."""
    store = Path(shutil.copytree(killed, tmp_path / "store"))
    log = store / f"{fsck.INDEX}-wal"
    sound = log.read_bytes()
    frames = (len(sound) - 32) // (24 + 4096)
    assert frames > 20
    for frame in range(0, frames - 8, 11):
        for octet in (0, 4, 8, 16, 24, 2000):  # page number, commit, salt, checksum, content
            damaged = bytearray(sound)
            damaged[32 + frame * (24 + 4096) + octet] ^= 4
            log.write_bytes(damaged)
            found = errors(store)
            assert found[0].startswith(f"{log.name}, frame {frame + 1}: it is damaged, and with it ")
    for octet in range(32):
        damaged = bytearray(sound)
        damaged[octet] ^= 4
        log.write_bytes(damaged)
        assert errors(store)[0] == f"{log.name}: the header is damaged: no commit that is in the log counts"


def test_a_torn_last_commit_is_a_note(killed: Path, tmp_path: Path):
    """If a commit that was never answered were called damage, every power cut would be a false alarm."""
    store = Path(shutil.copytree(killed, tmp_path / "store"))
    log = store / f"{fsck.INDEX}-wal"
    sound = log.read_bytes()
    last = len(sound) - 24 - 4096
    assert int.from_bytes(sound[last + 4 : last + 8], "big") > 0, "a commit"
    damaged = bytearray(sound)
    damaged[last + 1000] ^= 1
    log.write_bytes(damaged)
    logged = [found for found in check(store) if found.where.startswith(log.name)]
    assert [found.severity for found in logged] == [Severity.NOTE]
    log.write_bytes(sound[:-100])
    assert not any(found.where.startswith(log.name) for found in check(store))
    log.write_bytes(bytes(32))
    assert not any(found.where.startswith(log.name) for found in check(store)), "allocated, never written"


def test_a_frame_torn_in_its_head_is_no_second_commit(tmp_path: Path):
    """If the mark of a commit of the log before, left in the head of a torn frame, were counted as one of this log, a
    power cut would be called damage.
    """
    path = tmp_path / "any.db"
    with closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (b)").fetchall()
        for _ in range(10):
            db.execute("INSERT INTO t VALUES (zeroblob(3000))")
        db.execute("BEGIN")
        for _ in range(100):
            db.execute("INSERT INTO t VALUES (zeroblob(3000))")
        db.execute("COMMIT")
        log = bytearray(path.with_name("any.db-wal").read_bytes())
    torn = [at for at in range(32, len(log), 24 + 4096) if at % 512 == 504 and log[at + 4 : at + 8] == bytes(4)]
    assert torn, "the head of a frame of the large commit lies in two sectors"
    log[torn[0] + 4 : torn[0] + 8] = (7).to_bytes(4, "big")
    (tmp_path / LOG).write_bytes(log)
    (tmp_path / INDEX).write_bytes(path.read_bytes())
    with closing(PageImage(tmp_path / INDEX, tmp_path / LOG)) as image:
        found = list(check_log(image))
    assert [each.severity for each in found] == [Severity.NOTE], found


def test_the_command(closed: Path, store: Path, tmp_path: Path):
    """If its exit code or its words were wrong, the script that calls it would go on with a broken store."""

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "queue_store.fsck", *arguments], capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    assert run(str(closed)) == (0, "clean\n", "")
    change(store, "UPDATE campaigns SET accepted = 11 WHERE name = 'c2'")
    assert run(str(store)) == (
        1,
        "error: queue.db, campaign c2: 11 were accepted, but 0 wait and 10 have an outcome\n1 errors, 0 notes\n",
        "",
    )
    code, out, err = run(str(tmp_path / "nowhere"))
    assert (code, out) == (2, "")
    assert "nowhere" in err
    assert run()[0] == run("--help")[0] == run("a", "b")[0] == 2


@pytest.mark.root_only
def test_a_store_on_a_read_only_file_system(closed: Path, killed: Path, tmp_path: Path):
    """If it needed to write, the store in a backup or on a failing disk could not be checked."""
    for number, path in enumerate((closed, killed)):
        script = (
            f"mount --bind {path} {path} && mount -o remount,bind,ro {path} &&"
            f" ! touch {path}/x 2>/dev/null && {sys.executable} -m queue_store.fsck {path}"
        )
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=60)
        if "not permitted" in done.stderr or "denied" in done.stderr:
            pytest.skip(f"this machine allows no mounts: {done.stderr.strip()}")
        assert (done.returncode, done.stdout) == (0, "clean\n"), (number, done.stderr)
