"""A private Postfix: own configuration, queue and data folders, its master a child of this process.

Nothing of an installed Postfix is read or changed but its programs. It needs root, as Postfix's master does.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
{places}
myhostname = postfix.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = none
smtp_tls_security_level = none
relayhost = {relay}
# Names of clients are not looked up, as the other side does not do it either.
smtpd_peername_lookup = no
smtp_host_lookup = native
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
"""

# Without these two lines nobody takes mail out of the incoming queue: "in only".
_QUEUE_MANAGER = "qmgr unix n - n 300 1 qmgr\ntlsmgr unix - - n 1000? 1 tlsmgr\n"


class NoPostfix(Exception):
    """Postfix can't be run here; the text says why, and what to do."""


class Postfix:
    """One private instance, relaying everything to a port of this machine."""

    def __init__(self, *, port: int, relay: int) -> None:
        self.look_for()
        self.port = port
        self._relay = relay
        # Its daemons run as other users: the folder must be open to them.
        self._folder = Path(tempfile.mkdtemp(prefix="postfix-bench-", dir="/var/tmp"))
        self._folder.chmod(0o755)
        self._config = self._folder / "etc"
        self._config.mkdir()
        self._master: subprocess.Popen[bytes] | None = None
        places = _read_places()
        self.version = places.pop("mail_version")
        self._programs = Path(places["daemon_directory"])
        self._main = _MAIN.format(
            folder=self._folder,
            relay=f"[127.0.0.1]:{relay}",
            places="\n".join(f"{key} = {value}" for key, value in places.items()),
        )
        (self._folder / "data").mkdir()
        shutil.chown(self._folder / "data", "postfix")
        self._configure(deliver=True)
        (self._folder / "queue").mkdir()
        _run("postfix", "-c", str(self._config), "check")

    @staticmethod
    def look_for() -> None:
        """Raise NoPostfix when it can't be run here."""
        if os.geteuid() != 0:
            raise NoPostfix("Postfix can be started by root only: run this as root to compare with it")
        if shutil.which("postfix") is None or shutil.which("postconf") is None:
            raise NoPostfix("Postfix is not installed: apt-get install postfix")

    def start(self, *, deliver: bool = True, ready: float = 20.0) -> None:
        """Start it and wait until it greets. Without `deliver` it takes mail and leaves it where it is."""
        self._configure(deliver=deliver)
        self._master = subprocess.Popen(
            [str(self._programs / "master"), "-c", str(self._config), "-d"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it signals its process group when it ends
        )
        deadline = time.monotonic() + ready
        while not self._greets():
            if self._master.poll() is not None or time.monotonic() > deadline:
                raise NoPostfix(f"Postfix did not start in {self._folder}; is {self._programs}/master allowed to?")
            time.sleep(0.05)

    def stop(self) -> None:
        """End its master, which ends the others."""
        if self._master is not None:
            self._master.send_signal(signal.SIGTERM)
            self._master.wait(30)
            self._master = None

    def waiting(self) -> int:
        """Count the messages in its queue."""
        queue = self._folder / "queue"
        folders = ("maildrop", "incoming", "active", "deferred", "hold")
        return sum(1 for name in folders for path in (queue / name).rglob("*") if path.is_file())

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _configure(self, *, deliver: bool) -> None:
        # The queue manager hands out the tokens that slow down the input: without it there are none.
        (self._config / "main.cf").write_text(self._main + ("" if deliver else "in_flow_delay = 0\n"))
        services = _MASTER.format(port=self.port) + (_QUEUE_MANAGER if deliver else "")
        (self._config / "master.cf").write_text(services)

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                greeted = connection.recv(512).startswith(b"220")
                connection.sendall(b"QUIT\r\n")
                return greeted
        except OSError:
            return False


def _read_places() -> dict[str, str]:
    """Ask where the programs are and which users they run as."""
    wanted = (
        *("mail_version", "daemon_directory", "command_directory", "meta_directory", "shlib_directory"),
        *("mail_owner", "setgid_group"),
    )
    answer = _run("postconf", "-d", *wanted)
    return dict(line.split(" = ", 1) for line in answer.splitlines())


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoPostfix(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout
