"""The unit files, as systemd's own tools see them."""

import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = (UNITS / "mtactld.service").read_text()


@pytest.mark.needs("systemd-analyze", "systemd")
def test_units_are_sound(tmp_path):
    """A unit with a slip of the pen is ignored line by line, and nobody sees which hardening is missing."""
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.socket")):
        # The programs need not be installed here.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/mtactl", "/bin/true "))
    check = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *tmp_path.iterdir()], capture_output=True, text=True
    )
    assert "mtactld" not in check.stderr


@pytest.mark.needs("systemd-analyze", "systemd")
def test_exposure():
    """If it failed, a hole in the daemon would be a larger hole in the machine than it need be."""
    run = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNITS / "mtactld.service"],
        capture_output=True,
        text=True,
    )
    (level,) = re.findall(r"Overall exposure level for mtactld\.service: ([0-9.]+)", run.stdout)
    assert float(level) <= 1.5, run.stdout


def test_what_must_not_be_hardened():
    """If it failed, the store could not read the boot's id, and the control socket could not tell its callers apart."""
    directives = {line.partition("=")[0]: line.partition("=")[2] for line in SERVICE.splitlines() if "=" in line}
    assert "ProcSubset" not in directives
    assert "PrivateUsers" not in directives
    assert "prlimit64" in SERVICE


@pytest.mark.needs("shellcheck", "shellcheck")
def test_scripts():
    """If it failed, a script would do the wrong thing with an odd path, or go on after what failed."""
    root = UNITS.parent
    files = (path for folder in ("packaging", "debian", ".ci") for path in (root / folder).iterdir())
    scripts = [path for path in files if path.is_file()]
    scripts = [path for path in scripts if re.match(r"#!.*\b(ba)?sh\b|# shellcheck", path.read_text())]
    assert len(scripts) >= 9
    check = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, cwd=root)
    assert check.returncode == 0, check.stdout
