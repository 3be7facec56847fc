"""The world itself: what it records must be what a client was told, or the tests that rest on it prove nothing."""

import email
import email.policy
import random
import re
import socket
import time
from collections import Counter

import pytest

from tests.world.daemon import peer_world
from tests.world.injector import Injector
from tests.world.newsletter import DOMAINS, newsletters, sender_of, short_mails


class Client:
    """A client that is told what to say."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.file = self.socket.makefile("rb")

    def reply(self):
        """Read a reply; give its code and lines."""
        lines = []
        while True:
            line = self.file.readline()
            if not line:
                return 0, lines
            lines.append(line[4:].decode().rstrip())
            if line[3:4] != b"-":
                return int(line[:3]), lines

    def say(self, *lines):
        """Send lines together; give the code of each one's reply."""
        self.socket.sendall(b"".join(line.encode() + b"\r\n" for line in lines))
        return [self.reply()[0] for _ in lines]

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        self.reply()
        return self

    def __exit__(self, *_):
        self.close()


def mail_from(campaign, key=0):
    return f"MAIL FROM:<{sender_of(campaign, key)}>"


@pytest.mark.parametrize("plain", [False, True], ids=["pipelining", "one at a time"])
async def test_counts_agree(tmp_path, plain):
    """If a message were counted twice, or not, or changed, comparing the daemon's books with it would mean nothing."""
    mails = [*newsletters("letters", 150), *short_mails("short", 150, domains=("a.example", "b.example"))]
    random.Random(1).shuffle(mails)
    with peer_world(tmp_path / "world") as world:
        before = time.monotonic_ns()
        injector = Injector(world.plain_port if plain else world.port, connections=5, ledger=tmp_path / "ledger")
        await injector.inject(mails)
        after = time.monotonic_ns()
        record = world.record()
        assert injector.acknowledged == {mail.recipient for mail in mails}
        for campaign in ("letters", "short"):
            sent = {mail.recipient: mail for mail in mails if mail.campaign == campaign}
            assert record.delivered(campaign) == Counter(sent.keys())
            assert not record.duplicates(campaign) and not record.open_transactions(campaign)
            for each in record.of(campaign):
                (recipient,) = each.recipients
                assert each.crc == sent[recipient].crc
                assert each.size == len(sent[recipient].wire) - 3
                assert before < each.began < each.dot <= each.ended < after
                assert recipient.partition("@")[0].endswith(f"-{each.key}")
        assert record.most_connections["plain" if plain else "pipelining"] == 5
        injector.close()
        assert set((tmp_path / "ledger").read_text().split()) == injector.acknowledged


ODDS = {
    "rcpt.example": {"reject": 0.3, "defer": 0.3},
    "data.example": {"reject_data": 0.3, "defer_data": 0.3},
    "end.example": {"reject_end": 0.3, "defer_end": 0.3},
    "greylist.example": {"greylist": True},
    "fine.example": {},
}


async def test_refusals_agree_with_what_the_client_was_told(tmp_path):
    """If the record said anything but what went over the wire, bounces and deferrals could not be compared."""
    mails = list(short_mails("odd", 400, domains=tuple(ODDS)))
    with peer_world(tmp_path / "world", ODDS) as world:
        injector = Injector(world.port, connections=4)
        await injector.inject(mails)
        record = world.record()
        told = {}
        for each in record.of("odd"):
            ((recipient, code),) = each.recipients.items()
            told[recipient] = each.code if code == 250 else code
        assert told == injector.answers
        by_domain = Counter((address.partition("@")[2], code) for address, code in told.items())
        assert by_domain["fine.example", 250] == 80
        assert by_domain["greylist.example", 450] == 80
        for stage, refusal in (("rcpt", 550), ("data", 554), ("end", 554)):
            for code in (250, 451, refusal):
                assert by_domain[f"{stage}.example", code] > 5, (stage, code)
        assert record.rejected("odd") == {address for address, code in told.items() if code >= 500}
        assert set(record.delivered("odd")) == injector.acknowledged

        again = Injector(world.port, connections=1)
        await again.inject(mail for mail in mails if mail.recipient.endswith("@greylist.example"))
        assert set(again.answers.values()) == {250}


async def test_fates_depend_on_the_seed_alone(tmp_path):
    """If they depended on the order of arrival, a failure that a test found could not be had again."""
    mails = list(short_mails("odd", 200, domains=tuple(ODDS)))
    fates = []
    for number, seed in enumerate((1, 1, 2)):
        random.Random(number).shuffle(mails)
        with peer_world(tmp_path / str(number), ODDS, seed=seed) as world:
            injector = Injector(world.port, connections=number + 1)
            await injector.inject(mails)
            fates.append(injector.answers)
    assert fates[0] == fates[1] != fates[2]


async def test_hang_ups_leave_no_answer(tmp_path):
    """If a broken connection were recorded as a delivery, or not at all, `unknown` could not be judged."""
    odds = {"rcpt.example": {"hang_up_rcpt": 1}, "data.example": {"hang_up_data": 1}, "end.example": {"hang_up": 1}}
    with peer_world(tmp_path / "world", odds) as world:
        injector = Injector(world.plain_port, connections=3)
        await injector.inject(short_mails("gone", 3, domains=tuple(odds)))
        assert set(injector.answers.values()) == {0}
        record = world.record()
        assert not record.delivered("gone") and not record.open_transactions("gone")
        assert record.broken_off("gone") == {"gone-2@end.example"}
        ends = {next(iter(each.recipients)): (each.dot is not None, each.code, each.lost) for each in record.of("gone")}
        assert ends == {
            "gone-0@rcpt.example": (False, None, True),
            "gone-1@data.example": (False, None, True),
            "gone-2@end.example": (True, 0, False),
        }


@pytest.mark.parametrize("campaign", ["plain", "a+b=c/d@e:f", "dots..dots.", "x" * 45])
def test_a_campaign_is_known_before_its_data(tmp_path, campaign):
    """If it were not, a leak that was broken off before DATA would be nobody's."""
    with peer_world(tmp_path / "world") as world:
        with Client(world.port) as client:
            before = time.monotonic_ns()
            assert client.say("EHLO x", mail_from(campaign, 7)) == [250, 250]
            after = time.monotonic_ns()
            (began,) = world.record().begun_after(campaign, before)
            assert began.began < after and began.key == 7
            assert world.record().open_transactions(campaign) == world.record().open_at(campaign, after) == [began]
        while not world.record().lost(campaign):
            time.sleep(0.005)
        assert not world.record().open_transactions(campaign)
        assert len(sender_of(campaign, 999_999).partition("@")[0]) <= 64


def test_a_refused_or_reset_transaction_is_over(tmp_path):
    """If it stayed open in the record, the world would seem to have more in flight than the daemon."""
    with peer_world(tmp_path / "world", {"*": {"reject": 1}, "fine.example": {"reject": 0}}) as world:
        with Client(world.port) as client:
            assert client.say("EHLO x", mail_from("c", 1), "RCPT TO:<a@bad.example>") == [250, 250, 550]
            assert not world.record().open_at("c", time.monotonic_ns())
            assert client.say("DATA", mail_from("c", 2), "RCPT TO:<a@fine.example>") == [554, 250, 250]
            assert len(world.record().open_at("c", time.monotonic_ns())) == 1
            assert client.say("RSET") == [250]
            assert not world.record().open_at("c", time.monotonic_ns())
            assert client.say(mail_from("c", 3), mail_from("c", 4), "QUIT") == [250, 250, 221]
        assert not world.record().open_transactions("c") and not world.record().lost("c")
        assert world.record().rejected("c") == {"a@bad.example"}


def test_frozen_ends_are_answered_when_told(tmp_path):
    """If one were answered before, tests of what is in flight at a halt would test nothing."""
    with peer_world(tmp_path / "world") as world, Client(world.port) as client:
        world.freeze()
        client.say("EHLO x", mail_from("c"), "RCPT TO:<a@b.example>", "DATA")
        client.socket.sendall(f"X-Campaign-ID: c\r\n\r\nx\r\n.\r\n{mail_from('c', 1)}\r\n".encode())
        while len(world.record().of("c")) < 2:
            time.sleep(0.005)
        first, second = world.record().of("c")
        assert first.dot is not None and first.ended is None
        assert second.began > first.dot  # what is behind it is read all the same
        assert world.record().open_at("c", time.monotonic_ns()) == [first, second]
        before = time.monotonic_ns()
        world.thaw()
        assert client.reply()[0] == client.reply()[0] == 250
        (first, _) = world.record().of("c")
        assert first.code == 250 and first.ended > before
        assert world.record().delivered("c") == {"a@b.example": 1}


def test_replies_take_their_time_and_keep_their_order(tmp_path):
    """If a late reply were overtaken by the next one, a client would book results for the wrong recipients."""
    slow = {"slow.example": {"latency": 0.2, "jitter": 0.5}, "no.example": {"reject": 1}}
    with peer_world(tmp_path / "world", slow) as world, Client(world.port) as client:
        commands = ("RCPT TO:<a@slow.example>", "RCPT TO:<a@no.example>", "RCPT TO:<b@slow.example>", "DATA")
        assert client.say("EHLO x", mail_from("c"), *commands) == [250, 250, 250, 550, 250, 354]
        assert client.say("x\r\n.") == [250]
        (each,) = world.record().of("c")
        assert each.ended - each.dot >= 0.1e9
        assert each.recipients == {"a@slow.example": 250, "a@no.example": 550, "b@slow.example": 250}
        assert each.taken == ["a@slow.example", "b@slow.example"]


def test_ports_differ(tmp_path):
    """If a port offered what it is told not to, the paths for poorer peers would not be tested."""
    ports = {
        "poor": {"pipelining": False, "eight_bit": False, "smtputf8": False, "dsn": False, "size": 0},
        "chunks": {"chunking": True, "size": 1000},
        "few": {"max_connections": 1, "max_messages": 1},
        "never": {"refuse": 1},
        "mail": {"reject_mail": 0.5, "defer_mail": 0.5},
    }
    with peer_world(tmp_path / "world", ports=ports) as world:
        features = {}
        for name in ("poor", "chunks", "few"):
            with Client(world.ports[name]) as client:
                client.socket.sendall(b"EHLO x\r\n")
                features[name] = set(client.reply()[1][1:])
        assert features["poor"] == {"ENHANCEDSTATUSCODES"}
        assert features["few"] - features["chunks"] == {f"SIZE {100 << 20}"}
        assert features["chunks"] - features["few"] == {"SIZE 1000", "CHUNKING"}

        with Client(world.ports["chunks"]) as client:
            assert client.say("EHLO x", mail_from("c"), "RCPT TO:<a@b.example>") == [250] * 3
            client.socket.sendall(b"BDAT 10\r\nA: b\r\n\r\n.\rBDAT 3 LAST\r\n\n.\n")
            assert client.reply()[0] == client.reply()[0] == 250
            (each,) = world.record().of("c")
            assert each.size == 15  # both dots were stuffed

        with Client(world.ports["few"]) as client:
            second = Client(world.ports["few"])
            assert second.reply()[0] == 421 and second.reply()[0] == 0
            second.close()
            for codes in ([250, 250, 354], [421]):
                assert client.say(mail_from("c"), "RCPT TO:<a@b.example>", "DATA")[: len(codes)] == codes
                if 354 in codes:
                    assert client.say(".") == [250]

        never = Client(world.ports["never"])
        assert never.reply()[0] == 554 and never.reply()[0] == 0
        never.close()
        with Client(world.ports["mail"]) as client:
            assert {client.say(mail_from("m", key))[0] for key in range(40)} == {550, 451}
        assert not world.record().open_transactions("m")


def test_ports_go_down_and_up(tmp_path):
    """If they stayed up, a destination out of reach could not be tested."""
    with peer_world(tmp_path / "world") as world:
        with Client(world.port) as client:
            world.down()
            with pytest.raises(ConnectionRefusedError):
                Client(world.port)
            assert client.say("NOOP") == [250]
            world.up()
            Client(world.port).close()
            world.drop()
            assert client.reply()[0] == 0
        world.change({"new.example": {"reject": 1}})
        with Client(world.plain_port) as client:
            assert client.say(mail_from("c"), "RCPT TO:<a@new.example>") == [250, 550]


def test_the_world_ends_with_the_test(tmp_path):
    """If it outlived the one who started it, each killed test would leave a process behind."""
    with peer_world(tmp_path / "world") as world:
        world.process.stdin.close()
        assert world.process.wait(10) == 0


async def test_the_injector_remembers_lost_answers(tmp_path):
    """If it took a lost connection for an answer, the crash tests would look for mail that nobody promised."""
    with peer_world(tmp_path / "world", {"*": {"latency": 0.05}}) as world:
        injector = Injector(world.port, connections=3, rate=100)
        dropped = []

        def mails():
            for mail in short_mails("c", 200):
                if len(injector.acknowledged) >= 10 and not dropped:
                    world.drop()
                    dropped.append(mail.recipient)
                yield mail

        await injector.inject(mails())
        assert len(injector.acknowledged) >= 10 and 0 in injector.answers.values()
        assert injector.acknowledged <= set(world.record().delivered("c"))


def test_newsletters_are_real():
    """If they were not, the demo and the benchmarks would show how fast something is sent that nobody sends."""
    mails = list(newsletters("spring-sale", 2000))
    sizes = [len(mail.data) for mail in mails]
    assert min(sizes) >= 10_000 and max(sizes) <= 60_000 and max(sizes) > 2 * min(sizes)
    domains = Counter(mail.recipient.partition("@")[2] for mail in mails)
    assert len(domains) >= 12
    assert all(abs(domains[name] / 20 - share) < 4 for name, share in DOMAINS.items())
    assert len({mail.recipient for mail in mails}) == len(mails)
    for mail in mails[:20]:
        assert not re.search(rb"[^\r]\n|\r[^\n]|[^\x00-\x7f]|HEADERNAME|BODYNAME|TOADDRESS|TESTKEY", mail.data)
        message = email.message_from_bytes(mail.data, policy=email.policy.default)
        kinds = [part.get_content_type() for part in message.walk()]
        assert kinds == ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"]
        name = message["To"].addresses[0].display_name
        assert message["To"].addresses[0].addr_spec == mail.recipient
        text, page = (message.get_body((kind,)).get_content().replace("\r\n", "\n") for kind in ("plain", "html"))
        assert text.startswith(f"Dear {name},\n") and "\n.\n" in text
        assert f"Dear {name}</h1>" in page and mail.recipient in page
        assert name in message["Subject"]
        assert not [defect for part in message.walk() for defect in part.defects]
    assert [mail.data for mail in newsletters("spring-sale", 5, first=10)] == [mail.data for mail in mails[10:15]]
