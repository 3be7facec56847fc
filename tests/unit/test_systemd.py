"""What is told to systemd, and what is got from it."""

import os
import socket
import subprocess
import sys
import time
import uuid

import pytest

from mtactl.systemd import Notifier, take_sockets, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """Listen as a service manager does; give the socket and the environment of its service."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@mtactl-test-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        listener.settimeout(5)
        yield listener, {"NOTIFY_SOCKET": name}


def test_each_message(manager):
    """systemd kills a service that does not say READY=1, and one that does not end a reload."""
    listener, environ = manager
    notifier = Notifier(environ)
    assert notifier.listening
    notifier.ready()
    assert listener.recv(4096) == b"READY=1"
    notifier.ready("2 listeners")
    assert listener.recv(4096) == b"READY=1\nSTATUS=2 listeners"
    notifier.status("a\nREADY=1")
    assert listener.recv(4096) == b"STATUS=a READY=1"
    notifier.stopping("waiting for 3 transactions")
    assert listener.recv(4096) == b"STOPPING=1\nSTATUS=waiting for 3 transactions"
    notifier.watchdog()
    assert listener.recv(4096) == b"WATCHDOG=1"


def test_reloading_carries_the_time(manager):
    """Without the monotonic time Type=notify-reload takes the message for one of an earlier reload."""
    listener, environ = manager
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier(environ).reloading()
    first, second = listener.recv(4096).decode().split("\n")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= after


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_nobody_listens(environ):
    """A daemon started by hand, or one whose manager is gone, must not fall over it."""
    notifier = Notifier(environ)
    notifier.ready("x")
    notifier.watchdog()
    notifier.status("")


def test_a_manager_that_does_not_read(manager):
    """A full socket must not stop the event loop."""
    _listener, environ = manager
    notifier = Notifier(environ)
    for _ in range(2000):
        notifier.watchdog()


def test_watchdog_interval():
    """Too long an interval gets the daemon killed; a watchdog meant for another process is none of ours."""
    assert watchdog_interval({}) is None
    assert watchdog_interval({"WATCHDOG_USEC": "30000000"}) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_interval({"WATCHDOG_USEC": "0"}) is None
    assert watchdog_interval({"WATCHDOG_USEC": "soon"}) is None


CHILD = """
import os, sys
from mtactl.systemd import take_sockets
os.environ["LISTEN_PID"] = os.environ["LISTEN_PID"] or str(os.getpid())
taken = take_sockets()
for name, sockets in taken.items():
    for one in sockets:
        print(name, one.getsockname()[1], one.getblocking(), one.get_inheritable())
print(take_sockets(), sorted(key for key in os.environ if key.startswith("LISTEN")))
"""


def run_child(sockets, **environ):
    """Start Python with the sockets as file descriptors 3 and up, as systemd does."""

    def place():
        for number, one in enumerate(sockets, start=20):
            os.dup2(one.fileno(), number)
        for number in range(len(sockets)):
            os.dup2(20 + number, 3 + number)

    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        env=os.environ | {"LISTEN_PID": ""} | environ,
        preexec_fn=place,
        close_fds=False,
        capture_output=True,
        text=True,
        check=True,
    )
    return child.stdout.splitlines()


def test_sockets_by_name():
    """The daemon would open its own ports beside those that systemd holds for it, and lose connections at restarts."""
    with socket.create_server(("127.0.0.1", 0)) as smtp, socket.create_server(("127.0.0.1", 0)) as metrics:
        ports = smtp.getsockname()[1], metrics.getsockname()[1]
        assert run_child([smtp, metrics], LISTEN_FDS="2", LISTEN_FDNAMES="smtp:metrics") == [
            f"smtp {ports[0]} False False",
            f"metrics {ports[1]} False False",
            "{} []",
        ]
        assert run_child([smtp, metrics], LISTEN_FDS="2")[:2] == [
            f"unknown {ports[0]} False False",
            f"unknown {ports[1]} False False",
        ]
        assert run_child([smtp], LISTEN_FDS="1", LISTEN_PID="1") == ["{} []"]


def test_no_sockets():
    """Numbers that make no sense are not file descriptors."""
    assert take_sockets({}) == {}
    assert take_sockets({"LISTEN_FDS": "many", "LISTEN_PID": str(os.getpid())}) == {}
