"""What all tests share: the tools of the machine, free ports, and who is running them."""

import os
import shutil
import socket
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

IN_CI = os.environ.get("CI", "").lower() == "true"

# Debian keeps daemons and their test programs out of the path of ordinary users.
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/postfix/sbin")

# The machine may be busy with something else: no test is to fail on the time that one example took.
hypothesis_settings.register_profile(
    "mtactl", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("mtactl")


def add_to_path(folders: tuple[str, ...]) -> None:
    """Append the folders to the search path of this process and of those that it starts."""
    present = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(present + [folder for folder in folders if folder not in present])


add_to_path(SYSTEM_FOLDERS)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "root_only: the test changes users or file systems; skipped for other users")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what can't run here. A missing tool is a failure in CI, whose machine is ours to fill."""
    for marker in item.iter_markers("needs"):
        tool, package = marker.args
        if shutil.which(tool) is None:
            advice = f"{tool} is not installed: apt-get install {package}"
            if IN_CI:
                pytest.fail(advice, pytrace=False)
            pytest.skip(advice)
    if item.get_closest_marker("root_only") is not None and os.geteuid() != 0:
        pytest.skip("only root can do this")


@pytest.fixture
def take_port() -> Callable[[], int]:
    """Give a function that gives loopback TCP ports on which nothing listens, never the same one twice."""
    taken: set[int] = set()

    def take() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in taken:
                taken.add(port)
                return port

    return take


@pytest.fixture
def free_port(take_port: Callable[[], int]) -> int:
    """Give a loopback TCP port on which nothing listens, for servers that can't be bound to port 0."""
    return take_port()
