"""What the documents tell people to type works, and what is made from the program is up to date."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.world.application import inject, message, queue_id
from tests.world.daemon import Daemon, PeerWorld
from tests.world.documents import ROOT, blocks, inline, pages, put_in, type_in
from tests.world.operator import eventually

_NAMES = [page.name for page in pages()]


class Evening:
    """A node as an administrator finds it: one campaign under way, one that waits, a destination that defers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = PeerWorld(folder, {"slow.example": {"latency": 30.0}, "example.com": {"defer": 1.0}})
        self.node = Daemon(folder / "node", route=self.world.port, lane="max_connections = 2")
        self.fresh = 0

    def begin(self) -> None:
        self.node.start()
        port = self.node.smtp_port
        for number in range(12):
            inject(port, f"r{number}@slow.example", campaign="spring-sale")
            inject(port, f"r{number}@fast.example", campaign="members")
        self.deferred = queue_id(inject(port, "someone@example.com", data=message("members")))
        eventually(lambda: self.node.report("members")["counts"]["delivered"] >= 12)

    def end(self) -> None:
        self.node.end()
        self.world.end()

    def words(self, command: str) -> dict[str, str]:
        """Give what stands for what in a command. A halt gets a campaign of its own where none is named."""
        self.fresh += 1
        halts = re.search(r"\b(halt|stop|cancel)\b", command) is not None
        campaign = f"campaign-{self.fresh}" if halts else "members"
        return {
            "/run/mtactl/control.sock": str(self.node.socket),
            "/etc/mtactl/mtactl.toml": str(self.node.config),
            "/var/lib/mtactl": str(self.node.folder / "store"),
            "127.0.0.1:2525": f"127.0.0.1:{self.node.smtp_port}",
            "127.0.0.1:9464": f"127.0.0.1:{self.node.metrics_port}",
            **dict.fromkeys(("CAMPAIGN", "NAME", "JOB"), campaign),
            "ID": self.deferred,
            "DOMAIN": "example.com",
            "SITE": "example.com",
            "FILE": str(self.node.config),
        }

    def type(self, command: str) -> tuple[int, str]:
        environment = {
            "MTACTL_SOCKET": str(self.node.socket),
            "PATH": f"{Path(sys.executable).parent}:{ROOT / '.venv/bin'}:/usr/bin:/bin:/usr/sbin:/sbin",
        }
        return type_in(put_in(command, self.words(command)), env=environment, folder=self.folder)


@pytest.fixture
def evening(tmp_path):
    one = Evening(tmp_path)
    try:
        one.begin()
        yield one
    finally:
        one.end()


def test_every_block_of_commands_is_run_by_some_test():
    """If it failed, a document would tell people to type what nobody has ever typed."""
    for page in pages():
        for block in blocks(page):
            where = f"{block.page}:{block.line}"
            assert block.how, f"{where}: no test is named that runs it"
            if block.how != "node":
                for test in block.how.split():
                    assert (ROOT / test).exists(), f"{where}: {test} is not there"


@pytest.mark.needs("curl", "curl")
@pytest.mark.needs("swaks", "swaks")
@pytest.mark.needs("jq", "jq")
@pytest.mark.parametrize("page", pages(), ids=_NAMES)
def test_the_commands_of_a_page_work(page, evening):
    """If it failed, an administrator would type it at night, and nothing would happen, or the wrong thing."""
    commands = [command for block in blocks(page) if block.how == "node" for command in block.commands]
    # What stands in the text comes last, and what changes something last of that.
    earlier = {command for other in pages()[: pages().index(page)] for command in inline(other)}
    named = [command for command in dict.fromkeys(inline(page)) if command not in earlier]
    gentle = sorted(named, key=lambda command: "drop" in command or "halt" in command)
    for command in [*commands, *gentle]:
        status, shown = evening.type(command)
        if status == 2 and ("Missing argument" in shown or command == "mtactl fsck"):  # named, not written out
            status, shown = evening.type(f"{command} --help")
        assert status in ({0, 130} if "--follow" in command else {0}), f"{command}\n{shown}"
        assert "Traceback" not in shown, f"{command}\n{shown}"


def test_the_reference_of_the_api_is_the_document_that_the_daemon_serves():
    """If it failed, the page would tell of another API than the daemon has: run `make docs`."""
    made = subprocess.run([sys.executable, "-m", "tools.api_reference", "--check"], cwd=ROOT)
    assert made.returncode == 0


def test_no_link_between_the_documents_is_dead():
    """If it failed, the page that explains an alert would not be there when it is looked for."""
    for page in [*pages(), *(ROOT / "docs").glob("*.md"), ROOT / "queue_store" / "README.md", ROOT / "CHANGELOG.md"]:
        text = page.read_text()
        for target in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text):
            path, anchor = target
            if path.startswith(("http:", "https:", "mailto:")):
                continue
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), f"{page.name}: {path}"
            if anchor and linked.suffix == ".md":
                assert anchor[1:] in _anchors(linked), f"{page.name}: {path}{anchor}"


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    return slugs | set(re.findall(r'<a (?:id|name)="([^"]+)"', page.read_text()))
