"""Who may do what, by ids; and for how long that is remembered."""

import grp
import os
import pwd
import socket

import pytest

from mtactl.control.peers import Doorkeeper, Peer, Role, read_peer

MAIL = grp.getgrnam("mail").gr_gid
ADM = grp.getgrnam("adm").gr_gid
NAMELESS = 54321
OTHER = 54322


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def doorkeeper(clock: Clock | None = None) -> Doorkeeper:
    return Doorkeeper(operators=("mail", "no-such-group"), observers=("adm",), clock=clock or Clock())


def peer(uid: int = NAMELESS, gid: int = OTHER, *groups: int) -> Peer:
    return Peer(pid=1, uid=uid, gid=gid, groups=groups)


@pytest.mark.parametrize(
    ("who", "role"),
    [
        (peer(0), Role.OPERATOR),
        (peer(os.geteuid()), Role.OPERATOR),
        (peer(NAMELESS, MAIL), Role.OPERATOR),
        (peer(NAMELESS, OTHER, ADM, MAIL), Role.OPERATOR),
        (peer(NAMELESS, ADM), Role.OBSERVER),
        (peer(NAMELESS, OTHER, ADM), Role.OBSERVER),
        (peer(NAMELESS, OTHER), Role.STRANGER),
        (peer(NAMELESS, 0), Role.STRANGER),
        (peer(2**32 - 1, 2**32 - 1), Role.STRANGER),  # what the kernel says of a socket that is not a Unix socket
    ],
)
def test_roles(who, role):
    """Broken: someone may do what was not allowed to them."""
    assert doorkeeper().recognise(who).role is role


def test_names():
    """Broken: the log names the wrong one, or a user without an entry can't call at all."""
    assert doorkeeper().recognise(peer(0)).by.user == "root"
    nameless = doorkeeper().recognise(peer(NAMELESS)).by
    assert (nameless.uid, nameless.user) == (NAMELESS, str(NAMELESS))


def test_membership_in_the_group_table_counts(monkeypatch):
    """Broken: an operator who was just entered in the group has to log in anew, in the night of the mistake."""
    user = pwd.getpwnam("nobody")
    assert doorkeeper().recognise(peer(user.pw_uid)).role is Role.STRANGER
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, ADM] if name == "nobody" else [gid])
    assert doorkeeper().recognise(peer(user.pw_uid)).role is Role.OBSERVER
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, ADM, MAIL])
    assert doorkeeper().recognise(peer(user.pw_uid, ADM)).role is Role.OPERATOR


def test_what_was_found_holds_for_a_few_seconds(monkeypatch):
    """Broken: a slow directory service is asked in the way of each halt; or who was removed from a group stays in."""
    asked = []

    def members(name: str, gid: int) -> list[int]:
        asked.append(name)
        return [MAIL] if len(asked) == 1 else []

    monkeypatch.setattr(os, "getgrouplist", members)
    clock = Clock()
    door = doorkeeper(clock)
    nobody = peer(pwd.getpwnam("nobody").pw_uid)
    for clock.now in (0.0, 1.0, 4.9):
        assert door.recognise(nobody).role is Role.OPERATOR
    assert asked == ["nobody"]
    clock.now = 5.1
    assert door.recognise(nobody).role is Role.STRANGER
    assert door.recognise(peer(nobody.uid, MAIL)).role is Role.OPERATOR  # another group of the process: asked anew


def test_a_crowd_of_callers_does_not_fill_the_memory():
    """Broken: a program that starts a process with new groups for each call makes the daemon grow."""
    door = doorkeeper()
    for gid in range(3000):
        door.recognise(peer(NAMELESS, 100_000 + gid))
    assert len(door._known) <= 1024


def test_the_kernel_is_asked():
    """Broken: the ids are read in the wrong order or size."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with here, there:
        found = read_peer(here)
    assert (found.pid, found.uid, found.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert set(found.groups) == set(os.getgroups())
