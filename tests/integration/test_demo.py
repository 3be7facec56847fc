"""The demo, in small: what a newcomer runs first, and the whole of it end to end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start_demo(folder: Path, *arguments: str) -> subprocess.Popen:
    # Its own folder for temporary files (with a short path, as it holds a socket), to see what is left behind.
    return subprocess.Popen(
        [sys.executable, "-m", "tests.demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def processes_under(folder: Path) -> list[str]:
    """Give the command lines that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"{folder}/" in words:
            found.append(words)
    return found


@pytest.fixture
def folder():
    short = Path(tempfile.mkdtemp(prefix="d", dir="/tmp"))
    yield short
    shutil.rmtree(short)


@pytest.mark.timeout(180)
def test_the_demo_halts_a_campaign_and_both_witnesses_agree(folder):
    """`make demo` is the first thing that anyone runs: it would fail, or claim what the sink did not see."""
    demo = start_demo(folder, "--messages", "600")
    output, _ = demo.communicate(timeout=170)
    assert demo.returncode == 0, output
    assert "They agree, recipient by recipient" in output
    assert "Nothing began after the halt that was not counted in flight." in output
    assert "It ended with 0, and its files are sound." in output
    assert "550 5.7.1" in output
    assert output.splitlines()[-1].startswith("Done in ")
    assert "Traceback" not in output
    assert not list(folder.iterdir())
    assert not processes_under(folder)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(folder, number):
    """Whoever presses Ctrl-C would be left with a daemon, a sink and a folder full of mail."""
    demo = start_demo(folder, "--messages", "5000")
    for line in demo.stdout:
        if "newsletters" in line:
            break
    assert len(processes_under(folder)) >= 2
    time.sleep(0.5)
    demo.send_signal(number)
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, output
    assert "Traceback" not in output
    assert not list(folder.iterdir())
    assert not processes_under(folder)
