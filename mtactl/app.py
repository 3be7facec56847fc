"""The composition root: builds the parts, wires them, starts and stops them. The executable `mtactld`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

import structlog

from mtactl.activation import Activated, share_out
from mtactl.control.listener import ControlSocketError
from mtactl.control.server import ControlServer
from mtactl.control.types import ReloadReport
from mtactl.core import Core
from mtactl.edge.intake import StoreIntake
from mtactl.edge.listener import Listeners
from mtactl.edge.policy import ListenerPolicy
from mtactl.errors import ConfigError
from mtactl.heartbeat import Heartbeat
from mtactl.instruments import Instruments
from mtactl.message.headers import CampaignHeaders
from mtactl.node import LocalNode
from mtactl.observe.log import configure_log
from mtactl.observe.writer import LineWriter
from mtactl.relay.relay import SmtpRelay
from mtactl.reports import status_line
from mtactl.settings import Settings, load_settings
from mtactl.systemd import Notifier, take_sockets, watchdog_interval
from queue_store.errors import StoreError
from queue_store.store import QueueStore

__all__ = ["main"]

_EX_CONFIG = 78  # sysexits.h
_EDGE_GRACE = 5.0  # seconds for messages on their way in
_SILENT = 20.0  # seconds for one commit
_COLLECT = 20_000, 20, 20  # of the objects that a mail takes, hardly any is part of a cycle

_log = structlog.get_logger("mtactld")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Give uvloop's event loop, or asyncio's (slower, and nothing else) where uvloop has no wheel."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def wall_clock() -> int:
    """Give µs since the epoch."""
    return time.time_ns() // 1000


class Daemon:
    """One run of the daemon."""

    def __init__(self, path: Path, settings: Settings, writer: LineWriter) -> None:
        self._path = path
        self._settings = settings
        self._writer = writer
        self._stop = asyncio.Event()
        self._store_failed = ""
        self._accepting = False
        self._notifier = Notifier()
        self._instruments = Instruments(writer, settings, problems=self._problems, ready=lambda: self._accepting)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises ConfigError, StoreError, OSError, ControlSocketError at the start."""
        sockets = share_out(take_sockets(), self._settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        async with AsyncExitStack() as stack:
            self._notifier.status("opening the store")
            store = await QueueStore.open(
                self._settings.store.path,
                reserve=self._settings.store.reserve,
                now=wall_clock,
                on_commit=self._instruments.metrics.observe_commit,
                on_failed=self._fail,
            )
            heartbeat = Heartbeat(
                self._notifier, interval=watchdog_interval(), silence=store.silence, status=self._status_line
            )
            stack.callback(heartbeat.stop)
            stack.push_async_callback(_close_store, store)
            _tell_recovery(store)
            relay = SmtpRelay(lambda: self._settings)
            stack.push_async_callback(relay.close)
            self._core = Core(store=store, relay=relay, settings=self._settings, now=wall_clock)
            self._instruments.watch(self._core)
            await self._start(stack, sockets)
            gc.collect()
            gc.freeze()  # what is there now stays for the whole run: the collector need not walk it again
            gc.set_threshold(*_COLLECT)
            self._accepting = True
            self._notifier.ready(self._status_line())
            heartbeat.start()
            _log.info("ready", node=self._settings.node.name, version=version("mtactl"))
            await self._turn()
            self._accepting = False
            self._notifier.stopping(self._status_line())
            _log.info("stopping", in_flight=self._core.ledger.total.in_flight)
        _log.info("stopped")

    async def _start(self, stack: AsyncExitStack, sockets: Activated) -> None:
        """Start in the order in which the parts need each other; the stack stops them in the other order."""
        settings = self._settings
        core = self._core
        self._node = LocalNode(
            core,
            self._instruments.events,
            settings=lambda: self._settings,
            problems=self._problems,
            reload=self._reload,
        )
        if settings.metrics.listen is not None:
            monitoring = self._instruments.server()
            address = await monitoring.start(sockets.metrics or settings.metrics.listen)
            stack.push_async_callback(monitoring.close)
            _log.info("metrics_listening", address=address[0], port=address[1])
        control = ControlServer(self._node, settings.control, listening=sockets.control)
        await stack.enter_async_context(core)
        await control.start()
        stack.push_async_callback(control.stop)
        stack.callback(self._instruments.events.close)
        self._intake = StoreIntake(
            core.store,
            is_halted=core.gate.is_closed,
            claim_for=core.claim_for,
            on_appended=core.enter,
            on_refused=core.refuse,
            after_halt=settings.campaign.after_halt,
        )
        campaigns = CampaignHeaders(settings.campaign.headers)
        listeners = Listeners(
            [
                ListenerPolicy(
                    hostname=settings.node.hostname,
                    settings=listener,
                    campaigns=campaigns,
                    intake=self._intake,
                    # Half of its time for waiting leaves the other half for attempts.
                    max_hold=int(settings.delivery.expire_after / 2),
                )
                for listener in settings.listener
            ]
        )
        await listeners.start(sockets.smtp)
        stack.push_async_callback(listeners.stop, _EDGE_GRACE)
        stack.callback(self._intake.close)

    async def _turn(self) -> None:
        """Wait for the end, and do what goes by the clock in between."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        async with asyncio.TaskGroup() as group:
            clock = group.create_task(self._instruments.sample())
            await self._stop.wait()
            clock.cancel()

    def _status_line(self) -> str:
        line = status_line(self._core, self._problems(), time.monotonic())
        return line if self._accepting else f"stopping: {line}"

    # -- what goes wrong --------------------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        """Begin nothing more: the store takes no more writes. Say so until someone comes."""
        self._store_failed = str(error) or type(error).__name__
        self._core.lanes.stop()
        _log.error("the store failed; nothing more is taken or begun until a restart", why=self._store_failed)

    def _problems(self) -> Sequence[str]:
        problems = []
        if self._store_failed:
            problems.append(f"the store failed and takes no more writes: {self._store_failed}")
        elif self._core.store.free_bytes() <= 0:
            problems.append("the store's file system is full but for the reserve: mail is answered 452")
        silent = self._core.store.silence()
        if silent > _SILENT and not self._stop.is_set():
            problems.append(f"the store has not answered for {silent:.0f} s: its disk hangs, or is far too slow")
        return problems

    # -- reload -----------------------------------------------------------------------------------------------------

    def _hang_up(self) -> None:
        self._notifier.reloading()
        try:
            report = self._reload()
        except ConfigError as error:
            _log.error("configuration not reloaded, nothing changed", problems=list(error.problems))
        else:
            self._instruments.events.publish("reload", {"applied": list(report.applied), "by": "SIGHUP"})
            _log.info("configuration reloaded", applied=report.applied, needs_restart=report.needs_restart)
        self._notifier.ready(self._status_line())

    def _reload(self) -> ReloadReport:
        """Read the file again and apply what can be applied. Raises ConfigError; then nothing was changed."""
        new = load_settings(self._path)
        changed = set(_differences(self._settings, new))
        later = sorted(key for key in changed if key.startswith(_AT_START))
        applied = sorted(changed.difference(later))
        old = self._settings
        # What is read at the start stays what it was, so that it is told again at each reload until the restart.
        self._settings = new.model_copy(
            update={
                **{section: getattr(old, section) for section in ("node", "control", "metrics", "listener")},
                "store": new.store.model_copy(update={"path": old.store.path, "reserve": old.store.reserve}),
                "campaign": new.campaign.model_copy(update={"headers": old.campaign.headers}),
            }
        )
        self._core.change(self._settings)
        self._intake.after_halt = new.campaign.after_halt
        self._instruments.change(new.log)
        return ReloadReport(applied=tuple(applied), needs_restart=tuple(later))


# What is read at the start only; the rest is applied by a reload.
_AT_START = (
    "node.",
    "store.path",
    "store.reserve",
    "control.",
    "metrics.",
    "listener",
    "campaign.headers",
)


def _differences(old: Settings, new: Settings) -> list[str]:
    """Give the keys, as section.key, whose values differ."""
    found = []
    for section in type(old).model_fields:
        before, after = getattr(old, section), getattr(new, section)
        if before == after:
            continue
        keys = type(before).model_fields if hasattr(type(before), "model_fields") else None
        if keys is None:
            found.append(section)
        else:
            found.extend(f"{section}.{key}" for key in keys if getattr(before, key) != getattr(after, key))
    return found


def _tell_recovery(store: QueueStore) -> None:
    recovery = store.recovery
    for repair in recovery.repairs:
        _log.warning("store repaired", what=repair)
    if not recovery.clean:
        _log.warning(
            "the last run did not end in order",
            returned_to_queue=recovery.returned,
            settled_from_attempt_log=recovery.settled,
            unknown=recovery.unknown,
        )


async def _close_store(store: QueueStore) -> None:
    with contextlib.suppress(StoreError):  # one that failed has said so
        await store.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `mtactld`. Exits 0 at an orderly end, 78 for a bad configuration, 1 when it can't start."""
    parser = argparse.ArgumentParser(
        prog="mtactld", description="Own a mail server's outbound queue. See mtactl(1) for the client."
    )
    parser.add_argument("--config", type=Path, default=Path("/etc/mtactl/mtactl.toml"), metavar="FILE")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--version", action="version", version=f"mtactld {version('mtactl')}")
    chosen = parser.parse_args(arguments)
    try:
        settings = load_settings(chosen.config)
    except ConfigError as error:
        sys.exit(_complain(error.problems, _EX_CONFIG))
    if chosen.check:
        print(f"{chosen.config}: ok")  # noqa: T201  the answer to --check
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    writer = LineWriter(sys.stderr.fileno())
    configure_log(writer, form=settings.log.format, level=settings.log.level)
    status = 0
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_run(chosen.config, settings, writer))
    except ConfigError as error:
        _log.error("can't start", why="; ".join(error.problems))
        status = _EX_CONFIG
    except (StoreError, ControlSocketError, OSError) as error:
        _log.error("can't start", why=str(error))
        status = 1
    finally:
        writer.close()
    sys.exit(status)


async def _run(path: Path, settings: Settings, writer: LineWriter) -> None:
    await Daemon(path, settings, writer).run()


def _complain(problems: Sequence[str], status: int) -> int:
    for problem in problems:
        print(f"mtactld: {problem}", file=sys.stderr)  # noqa: T201  before there is a log
    return status


if __name__ == "__main__":
    main()
