"""A private Postfix that receives: own configuration, queue, data and mail folders, its master a child of the test.

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
smtpd_peername_lookup = no
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
smtpd_relay_restrictions = permit_mynetworks, reject
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

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
proxymap unix - - n - - proxymap
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """What a running instance has taken in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def log(self) -> str:
        """All that it logged."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def mails(self) -> list[bytes]:
        """Give the messages that it delivered, in the form of Unix: lines end in LF."""
        return [path.read_bytes() for path in (self.folder / "mail/all/new").glob("*")]


@contextmanager
def run_postfix(port: int) -> Iterator[Postfix]:
    """Run one on a port of loopback for a block; it delivers all that it gets into one Maildir.

    It refuses refused@one.example, and messages of over 4,000,000 octets.
    """
    # Its daemons run as other users: the folder must be open to them.
    folder = Path(tempfile.mkdtemp(prefix="postfix-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        for name in ("etc", "queue", "data", "mail"):
            (folder / name).mkdir()
        owner = pwd.getpwnam("postfix")
        for name in ("data", "mail"):
            os.chown(folder / name, owner.pw_uid, owner.pw_gid)
        places = _read_places()
        text = "\n".join(f"{key} = {value}" for key, value in places.items())
        (folder / "etc/main.cf").write_text(
            _MAIN.format(folder=folder, places=text, uid=owner.pw_uid, gid=owner.pw_gid)
        )
        (folder / "etc/master.cf").write_text(_MASTER.format(port=port))
        subprocess.run(["postfix", "-c", str(folder / "etc"), "check"], check=True, capture_output=True)
        master = subprocess.Popen(
            [f"{places['daemon_directory']}/master", "-c", str(folder / "etc"), "-d"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it signals its process group when it ends
        )
        postfix = Postfix(folder)
        try:
            _wait_for(port, master, postfix)
            yield postfix
        finally:
            master.send_signal(signal.SIGTERM)
            master.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read_places() -> dict[str, str]:
    """Ask where the programs are and which users they run as."""
    wanted = (
        "daemon_directory",
        "command_directory",
        "meta_directory",
        "shlib_directory",
        "mail_owner",
        "setgid_group",
    )
    answer = subprocess.run(["postconf", "-d", *wanted], check=True, capture_output=True, text=True).stdout
    return dict(line.split(" = ", 1) for line in answer.splitlines())


def _wait_for(port: int, master: subprocess.Popen[bytes], postfix: Postfix) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                assert connection.recv(512).startswith(b"220")
                connection.sendall(b"QUIT\r\n")
                return
        except OSError:
            assert master.poll() is None, f"Postfix ended:\n{postfix.log}"
            assert time.monotonic() < deadline, f"Postfix does not listen:\n{postfix.log}"
            time.sleep(0.05)
