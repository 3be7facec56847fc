"""Deliveries to Postfix's smtp-sink, with what it can refuse and leave out."""

import asyncio
import re

import pytest

from mtactl.errors import TransientFailure
from mtactl.relay.relay import SmtpRelay
from mtactl.schedule.ports import Ending
from tests.integration.test_relay_session import deliver, make_settings
from tests.world.loops import on_both_loops
from tests.world.sink import run_sink

pytestmark = pytest.mark.needs("smtp-sink", "postfix")

BODY = b"Subject: dots\r\n\r\n..\r\n...two\r\nend\r\n.\r\n"
D, P, T, L, LE = Ending.DELIVERED, Ending.PERMANENT, Ending.TRANSIENT, Ending.LOST, Ending.LOST_AFTER_END


@pytest.mark.parametrize(
    ("switches", "ending"),
    [
        ([], D),
        (["-p"], D),
        (["-e"], D),
        (["-8", "-N", "-E"], D),
        (["-P"], D),
        (["-f", "mail"], P),
        (["-r", "mail"], T),
        (["-f", "rcpt"], P),
        (["-r", "rcpt"], T),
        (["-f", "data"], P),
        (["-r", "data"], T),
        (["-f", "."], P),
        (["-r", "."], T),
        (["-Q", "mail"], T),
        (["-Q", "rcpt"], T),
        (["-Q", "data"], T),
        (["-Q", "."], T),
        (["-q", "mail"], L),
        (["-q", "rcpt"], L),
        (["-q", "data"], L),
        (["-q", "."], LE),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@on_both_loops
async def test_sink(switches, ending, free_port):
    """If it failed, a real peer's refusals and losses would be booked as something else than they are."""
    async with run_sink(free_port, *switches):
        settings = make_settings(free_port)
        session = await SmtpRelay(lambda: settings).connect("x.example", "x.example")
        for _ in range(2):
            results = await deliver(session, 3, body=BODY)
            assert [result.ending for result in results] == [ending] * 3
            if not session.usable:
                break
        left = switches and switches[0] in ("-q", "-Q")
        assert session.usable is not bool(left)
        await session.quit()


@pytest.mark.parametrize("switches", [["-f", "connect"], ["-r", "connect"], ["-q", "connect"], ["-q", "ehlo"]])
@on_both_loops
async def test_sink_that_lets_no_one_in(switches, free_port):
    """If it failed, a peer that refuses sessions would bounce mail, or hang us."""
    async with run_sink(free_port, *switches):
        settings = make_settings(free_port)
        with pytest.raises(TransientFailure):
            await SmtpRelay(lambda: settings).connect("x.example", "x.example")


@pytest.mark.parametrize("switches", [[], ["-p"]])
@on_both_loops
async def test_what_the_sink_got(switches, free_port, tmp_path):
    """If it failed, a message would be changed on its way, by its dots above all."""
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    dump = tmp_path / "mail"
    async with run_sink(free_port, "-R", str(tmp_path), "-D", "mail", *switches):
        settings = make_settings(free_port)
        relay = SmtpRelay(lambda: settings)
        sessions = [await relay.connect("x.example", "x.example") for _ in range(3)]
        for _ in range(5):
            await asyncio.gather(*[deliver(session, 2, body=BODY) for session in sessions])
        await asyncio.gather(*[session.quit() for session in sessions])
        text = dump.read_text()
    assert len(re.findall(r"^Subject: dots\n\n\.\n\.\.two\nend$", text, re.MULTILINE)) == 15
    assert len(re.findall(r"^X-Rcpt-Args: <r1@example.net>", text, re.MULTILINE)) == 15
