"""Private instances of Postfix: own configuration, queue, data and mail folders, the master a child of this process.

Nothing of an installed Postfix is read or changed but its programs. It needs root, as Postfix's master does.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
# Names of clients are not looked up, as the other side does not do it either.
smtpd_peername_lookup = no
"""

_SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
"""

QUEUE_MANAGER = "qmgr unix n - n 300 1 qmgr\n"

_RECEIVING_MAIN = """\
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
smtpd_recipient_restrictions = check_recipient_access inline:{{refused@one.example=REJECT}}
message_size_limit = 4000000
# What arrives is left as it is.
local_header_rewrite_clients =
virtual_mailbox_domains = static:yes
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:all/
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"""

_RECEIVING_SERVICES = f"""\
{QUEUE_MANAGER}\
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
"""


class NoPostfix(Exception):
    """Postfix can't be run here; the text says why, and what to do."""


class Instance:
    """One private instance on a port of loopback. `configure` it, then `start` it; `remove` it in any case.

    Raises NoPostfix where none can be run.
    """

    def __init__(self, *, port: int) -> None:
        self.look_for()
        self.port = port
        self._places = _read_places()
        self.version = self._places.pop("mail_version")
        self.master: subprocess.Popen[bytes] | None = None
        # Its daemons run as other users: the folder must be open to them.
        self.folder = Path(tempfile.mkdtemp(prefix="postfix-", dir="/var/tmp"))
        self.config = self.folder / "etc"
        try:
            self.folder.chmod(0o755)
            for name in ("etc", "queue", "data", "mail"):
                (self.folder / name).mkdir()
            for name in ("data", "mail"):
                shutil.chown(self.folder / name, self._places["mail_owner"])
        except BaseException:
            self.remove()
            raise

    @staticmethod
    def look_for() -> None:
        """Raise NoPostfix when it can't be run here."""
        if os.geteuid() != 0:
            raise NoPostfix("Postfix can be started by root only")
        if shutil.which("postfix") is None or shutil.which("postconf") is None:
            raise NoPostfix("Postfix is not installed: apt-get install postfix")

    def configure(self, main: str, services: str) -> None:
        """Write main.cf and master.cf: what all instances have, and this."""
        places = "\n".join(f"{key} = {value}" for key, value in self._places.items())
        (self.config / "main.cf").write_text(_MAIN.format(folder=self.folder, places=places) + main)
        (self.config / "master.cf").write_text(_SERVICES.format(port=self.port) + services)

    def start(self, *, ready: float = 20.0) -> None:
        """Start it and wait until it greets."""
        if not any((self.folder / "queue").iterdir()):
            _run("postfix", "-c", str(self.config), "check")  # makes the queue's folders, in seconds
        self.master = subprocess.Popen(
            [f"{self._places['daemon_directory']}/master", "-c", str(self.config), "-d"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it signals its process group when it ends
        )
        deadline = time.monotonic() + ready
        while not self._greets():
            if self.master.poll() is not None or time.monotonic() > deadline:
                raise NoPostfix(f"Postfix did not start in {self.folder}; is it allowed to?\n{self.log}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End its master, which ends the others."""
        if self.master is not None:
            master, self.master = self.master, None
            master.send_signal(signal.SIGTERM)
            try:
                master.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(master.pid, signal.SIGKILL)
                master.wait()
            # The others outlive it by a moment, in which they hold the port that the next master wants.
            deadline = time.monotonic() + 10
            while _runs(master.pid) and time.monotonic() < deadline:
                time.sleep(0.01)

    def remove(self) -> None:
        """Stop it and remove its folder."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """All that it logged, where it is configured to."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def mails(self) -> list[bytes]:
        """Give the messages that it delivered, in the form of Unix: lines end in LF."""
        return [path.read_bytes() for path in (self.folder / "mail/all/new").glob("*")]

    def _greets(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                greeted = connection.recv(512).startswith(b"220")
                connection.sendall(b"QUIT\r\n")
                return greeted
        except OSError:
            return False


@contextmanager
def run_postfix(port: int) -> Iterator[Instance]:
    """Run one that receives for a block; it delivers all that it gets into one Maildir.

    It refuses refused@one.example, and messages of over 4,000,000 octets.
    """
    owner = pwd.getpwnam("postfix")
    postfix = Instance(port=port)
    try:
        main = _RECEIVING_MAIN.format(folder=postfix.folder, uid=owner.pw_uid, gid=owner.pw_gid)
        postfix.configure(main, _RECEIVING_SERVICES)
        postfix.start()
        yield postfix
    finally:
        postfix.remove()


def _runs(group: int) -> bool:
    """Whether a process of a group runs still."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended since
        if int(of_group) == group and state != "Z":
            return True
    return False


def _read_places() -> dict[str, str]:
    """Ask for the version, where the programs are, and which users they run as."""
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
