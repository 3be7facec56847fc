"""The peer: a private Postfix that relays all to a port of this machine, as it is configured when it is installed."""

from __future__ import annotations

from pathlib import Path

from tests.bench.processes import TICK, cpu_fields
from tests.world.postfix import QUEUE_MANAGER, Instance, NoPostfix

__all__ = ["NoPostfix", "Postfix"]

_MAIN = """\
smtpd_tls_security_level = none
smtp_tls_security_level = none
smtp_host_lookup = native
relayhost = [127.0.0.1]:{relay}
"""

# The queue manager hands out the tokens that slow down the input: without it there are none.
_NO_FLOW_DELAY = "in_flow_delay = 0\n"

_SERVICES = """\
smtp unix - - n - - smtp
relay unix - - n - - smtp
scache unix - - n - 1 scache
showq unix n - n - - showq
"""

# Without these nobody takes mail out of the incoming queue: "in only".
_DELIVERY = f"{QUEUE_MANAGER}tlsmgr unix - - n 1000? 1 tlsmgr\n"


class Postfix(Instance):
    """One instance; without `deliver` it takes mail and leaves it where it is."""

    def __init__(self, *, port: int, relay: int) -> None:
        super().__init__(port=port)
        self._relay = relay

    def start(self, *, deliver: bool = True, ready: float = 20.0) -> None:
        """Start it and wait until it greets. Raises NoPostfix."""
        self.configure(
            _MAIN.format(relay=self._relay) + ("" if deliver else _NO_FLOW_DELAY),
            _SERVICES + (_DELIVERY if deliver else ""),
        )
        super().start(ready=ready)

    def cpu(self) -> float:
        """Give the seconds of CPU of the master, of its children, and of those that have ended."""
        if self.master is None:
            return 0.0
        master = str(self.master.pid)
        total = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent, ticks = cpu_fields(path)
            except OSError:
                continue  # it has ended since
            if path.parent.name == master:
                total += sum(ticks)
            elif parent == master:
                total += sum(ticks[:2])
        return total / TICK
