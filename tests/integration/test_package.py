"""The Debian package, built once: what is in it, and its life from installation to purge in a root of its own.

`make boot-test` does the same, and more, in a machine that it boots with systemd as PID 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.world.daemon import free_port

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.needs("dpkg-buildpackage", "dpkg-dev"),
    pytest.mark.needs("dh", "debhelper"),
]


@pytest.fixture(scope="module")
def package() -> Path:
    """Give a package that was built from this tree just now."""
    built = subprocess.run(["make", "deb"], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return ROOT / built.stdout.split()[-1]


@pytest.fixture(scope="module")
def tree(package, tmp_path_factory) -> Path:
    """Give the package's files."""
    folder = tmp_path_factory.mktemp("tree")
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    return folder


@pytest.mark.needs("lintian", "lintian")
def test_lintian(package):
    """If it failed, the package would break a rule of the distribution that it is made for."""
    run = subprocess.run(["lintian", "--allow-root", "--fail-on=error", package], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@pytest.mark.needs("systemd-analyze", "systemd")
def test_units_of_the_installed_tree(tree):
    """If it failed, a unit would name a program or a file that the package does not have."""
    units = sorted((tree / "lib/systemd/system").iterdir())
    assert [unit.name for unit in units] == ["mtactld-control.socket", "mtactld.service", "mtactld.socket"]
    for program in set(
        re.findall(r"^Exec\w+=(\S+)", (tree / "lib/systemd/system/mtactld.service").read_text(), re.MULTILINE)
    ):
        link = tree / program.removeprefix("/")
        assert link.is_symlink()
        target = tree / str((link.parent / link.readlink()).resolve()).removeprefix(str(tree)).lstrip("/")
        assert target.read_text().startswith("#!/usr/lib/mtactl/bin/python3 -I\n")
    run = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--root={tree}", "--no-pager", "mtactld.service"],
        capture_output=True,
        text=True,
    )
    (level,) = re.findall(r"Overall exposure level for mtactld\.service: ([0-9.]+)", run.stdout)
    assert float(level) <= 1.5, run.stdout


def test_nothing_of_the_building_machine(package, tree):
    """If it failed, two machines would build two packages, and a path of one of them would be looked for on another."""
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert str(ROOT).encode() not in path.read_bytes(), path
    conffiles = subprocess.run(["dpkg-deb", "--info", package, "conffiles"], capture_output=True, text=True).stdout
    assert conffiles.split() == ["/etc/mtactl/mtactl.toml"]


def test_uninstall_takes_what_install_put(tree, tmp_path):
    """If it failed, `make uninstall` would leave a program behind, or take the configuration."""
    root = tmp_path / "root"
    shutil.copytree(tree, root, symlinks=True)
    where = {"DESTDIR": str(root), "prefix": "/usr", "unitdir": "/lib/systemd/system"}
    subprocess.run(["make", "uninstall"], cwd=ROOT, env=os.environ | where, check=True, capture_output=True)
    left = [path.relative_to(root) for path in root.rglob("*") if not path.is_dir()]
    assert [str(path) for path in left if "share/lintian" not in str(path)] == ["etc/mtactl/mtactl.toml"]


LIFE = r"""
set -eux
package=$1 smtp=$2 metrics=$3 closed=$4
config=/etc/mtactl/mtactl.toml

start() {
    install -d -o mtactl -g mtactl /run/mtactl
    install -d -o mtactl -g mtactl -m 700 /var/lib/mtactl
    setpriv --reuid=mtactl --regid=mtactl --clear-groups mtactld --config $config 2>>/root/log &
    daemon=$!
    for _ in $(seq 300); do mtactl status >/dev/null 2>&1 && return; kill -0 $daemon; sleep 0.1; done
    cat /root/log; return 1
}
stop() { kill $daemon; wait $daemon; }

dpkg --install "$package"
getent passwd mtactl
mtactld --config $config --check
sed -i "s/^listen = \"127.0.0.1:2525\"/listen = \"127.0.0.1:$smtp\"/; s/127.0.0.1:9464/127.0.0.1:$metrics/" $config
sed -i "s/^route = \[\]/route = [\"127.0.0.1:$closed\"]/" $config
start
swaks --server "127.0.0.1:$smtp" --from a@news.example --to r@one.example --header 'X-Campaign-ID: sale' --hide-all
mtactl hold other >/dev/null
mtactl halt sale --confirm sale >/dev/null
mtactl --json show sale | grep -q '"dropped": *1'
stop

dpkg --install "$package"     # an upgrade: the changed configuration and the store stay
grep -q "127.0.0.1:$smtp" $config
start
mtactl --json show sale | grep -q '"state": *"halted"'
stop
test -n "$(find /usr/lib/mtactl -name '*.pyc' -print -quit)"

dpkg --remove mtactl
test -e $config
test -e /var/lib/mtactl/queue.db
dpkg --purge mtactl
test ! -e /etc/mtactl
test ! -e /usr/lib/mtactl
test -e /var/lib/mtactl/queue.db   # accepted mail and halts can't be had again
"""

# A layer above this machine's own root, seen by nobody else, and gone with the last process in it.
LAYER = r"""
set -e
layer=$1; shift
mount -t tmpfs tmpfs "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
mount --bind /dev "$layer/root/dev"
mount -t proc proc "$layer/root/proc"
mount -t tmpfs tmpfs "$layer/root/run"
cp "$1" "$layer/root/root/mtactl.deb"; shift
exec chroot "$layer/root" /bin/sh -c "$LIFE" sh /root/mtactl.deb "$@"
"""


@pytest.mark.root_only
@pytest.mark.needs("swaks", "swaks")
def test_installed_run_upgraded_purged(package, tmp_path):
    """If it failed, an upgrade would lose the queue or the configuration, or a purge the halts."""
    ports = [str(free_port()) for _ in range(3)]
    run = subprocess.run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", LAYER, "sh"),
            tmp_path,
            package,
            *ports,
        ],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LIFE": LIFE, "HOME": "/root", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-5000:]
