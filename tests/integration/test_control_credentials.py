"""Who may do what: real processes of other users and groups on a real socket."""

import grp
import json
import os
import pwd

import pytest
from structlog.testing import capture_logs

from tests.world.control import curl, serving
from tests.world.memory_node import MemoryNode

pytestmark = [pytest.mark.root_only, pytest.mark.needs("curl", "curl")]

NOBODY = 65534
NAMELESS = 54321
HALT = ("-d", '{"confirm": "c1"}', "http://x/v1/campaigns/c1/halt")
READ = ("http://x/v1/status",)


def as_user(uid: int, gid: int = NOBODY, groups: tuple[int, ...] = ()) -> dict:
    return {"user": uid, "group": gid, "extra_groups": list(groups)}


def gid_of(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def allowing():
    """Serve with the operators and observers of these tests, to everyone who can reach the socket."""
    return serving(mode=0o666, operators=("mail", "no-such-group"), observers=("adm",))


@pytest.mark.parametrize("uid", [NOBODY, NAMELESS])
async def test_a_stranger_may_nothing(uid):
    """Broken: any process on the machine can stop the mail, or read who gets it."""
    async with allowing() as api:
        with capture_logs() as logs:
            for arguments in (
                HALT,
                READ,
                ("http://x/v1/openapi.json",),
                ("http://x/nope",),
                ("-X", "DELETE", "http://x/"),
            ):
                status, body = await curl(api.path, *arguments, **as_user(uid))
                assert status == 403
                assert json.loads(body)["type"] == "urn:mtactl:problem:forbidden"
        assert api.node.asked == []
        assert {(entry["event"], entry["uid"]) for entry in logs} == {("control_denied", uid)}


async def test_an_observer_may_read_and_no_more():
    """Broken: monitoring can't look, or can stop a campaign."""
    node = MemoryNode()
    node.accept("c1", ["r@example.com"])
    async with serving(node, mode=0o666, operators=("mail",), observers=("adm",)) as api:
        for who in (as_user(NOBODY, gid_of("adm")), as_user(NOBODY, NOBODY, (gid_of("adm"),))):
            for path in (
                "status",
                "campaigns",
                "campaigns/c1",
                "campaigns/c1/recipients",
                "queue",
                "lanes",
                "openapi.json",
            ):
                assert (await curl(api.path, f"http://x/v1/{path}", **who))[0] == 200
            assert (await curl(api.path, "http://x/v1/events?follow=false", **who))[0] == 200
            for path in ("campaigns/c1/hold", "campaigns/c1/release", "queue/retry", "queue/drop", "reload"):
                assert (await curl(api.path, "-X", "POST", f"http://x/v1/{path}", **who))[0] == 403
            assert (await curl(api.path, *HALT, **who))[0] == 403
        assert node.asked == []


async def test_an_operator_may_all_and_is_named_in_the_report():
    """Broken: the group that is to run the mail can't, or no one knows who it was."""
    async with allowing() as api:
        status, body = await curl(api.path, *HALT, **as_user(NOBODY, gid_of("mail")))
        assert status == 200
        assert json.loads(body)["stop"]["requested_by"] == {"uid": NOBODY, "user": pwd.getpwuid(NOBODY).pw_name}
        status, body = await curl(
            api.path,
            *("-d", '{"confirm": "c2"}', "http://x/v1/campaigns/c2/halt"),
            **as_user(NAMELESS, NOBODY, (gid_of("adm"), gid_of("mail"))),
        )
        assert status == 200
        assert json.loads(body)["stop"]["requested_by"] == {"uid": NAMELESS, "user": str(NAMELESS)}


async def test_a_process_with_many_groups_is_judged_and_not_failed():
    """Broken: on machines with a directory service, whose users are in hundreds of groups, each request is a 500."""
    async with allowing() as api:
        some = (*range(100_000, 100_200), gid_of("mail"))
        assert (await curl(api.path, *READ, **as_user(NAMELESS, NOBODY, some)))[0] == 200
        many = (*range(100_000, 100_300), gid_of("mail"))  # more than can be asked for: its own group counts still
        assert (await curl(api.path, *READ, **as_user(NAMELESS, NOBODY, many)))[0] == 403
        assert (await curl(api.path, *READ, **as_user(NAMELESS, gid_of("mail"), many)))[0] == 200


async def test_a_group_that_does_not_exist_is_told_at_the_start():
    """Broken: a misspelt group keeps the operators out and nothing says why."""
    with capture_logs() as logs:
        async with allowing():
            pass
    warnings = [entry for entry in logs if entry["event"] == "control_group_unknown"]
    assert [(entry["group"], entry["setting"]) for entry in warnings] == [("no-such-group", "control.operators")]


async def test_the_daemons_own_user_may_all():
    """Broken: a daemon that does not run as root can't be spoken to by its own account."""
    os.seteuid(NOBODY)
    try:
        serves = serving(mode=0o600)
        api = await serves.__aenter__()
    finally:
        os.seteuid(0)
    try:
        assert (await curl(api.path, *HALT, **as_user(NOBODY)))[0] == 200
        assert (await curl(api.path, *HALT))[0] == 200
        api.path.chmod(0o666)
        assert (await curl(api.path, *READ, **as_user(NAMELESS)))[0] == 403
    finally:
        await serves.__aexit__(None, None, None)
