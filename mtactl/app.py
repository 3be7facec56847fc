"""The composition root: builds the parts, wires them, starts and stops them. The executable `mtactld`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gc
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from mtactl.activation import Activated, share_out
from mtactl.control.listener import ControlSocketError
from mtactl.control.server import ControlServer
from mtactl.control.types import ReloadReport
from mtactl.core import Core
from mtactl.descriptors import TooFewDescriptors, fit
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
from mtactl.reload import plan_reload
from mtactl.reports import status_line
from mtactl.settings import Settings, load_settings
from mtactl.systemd import Notifier, take_sockets, watchdog_interval
from queue_store.errors import StoreError
from queue_store.store import QueueStore

__all__ = ["command_line", "main"]

_EX_CONFIG = 78  # sysexits.h
_EDGE_GRACE = 5.0  # seconds for messages on their way in
_TOLD_EVERY = 60.0  # seconds
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
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
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._settings, self._shares = fit(settings, self._descriptors)
        if self._settings is not settings:
            _log.warning(
                "the limit on open files does not allow for all connections that are configured",
                limit=self._descriptors,
                clients=self._shares.clients,
                peers=self._shares.peers,
            )
        self._writer = writer
        self._stop = asyncio.Event()
        self._told_of_accept = float("-inf")
        self._store_failed = ""
        self._accepting = False
        self._listeners: Listeners | None = None
        self._notifier = Notifier()
        self._instruments = Instruments(writer, settings, problems=self._hindrances, ready=lambda: self._accepting)
        self._instruments.store_failed = lambda: bool(self._store_failed)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises ConfigError, StoreError, OSError, ControlSocketError at the start."""
        sockets = share_out(take_sockets(), self._settings)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._take_exception)
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
            problems=lambda: [*self._problems(), *core.store.notices()],
            reload=self._reload,
        )
        if settings.metrics.listen is not None:
            monitoring = self._instruments.server(most=self._shares.monitoring, backlog=self._shares.backlog)
            address = await monitoring.start(sockets.metrics or settings.metrics.listen)
            stack.push_async_callback(monitoring.close)
            _log.info("metrics_listening", address=address[0], port=address[1])
        self._control = ControlServer(
            self._node,
            settings.control,
            listening=sockets.control,
            most=self._shares.control,
            backlog=self._shares.backlog,
        )
        await stack.enter_async_context(core)
        await self._control.start()
        stack.push_async_callback(self._control.stop)
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
        self._listeners = listeners = Listeners(
            [
                ListenerPolicy(
                    hostname=settings.node.hostname,
                    settings=listener,
                    campaigns=campaigns,
                    intake=self._intake,
                    # Half of its time for waiting leaves the other half for attempts.
                    longest_hold=lambda: int(self._settings.delivery.expire_after / 2),
                )
                for listener in settings.listener
            ]
        )
        self._instruments.inbound_connections = lambda: listeners.connections
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

    def _take_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what nobody took care of. asyncio's own loop comes here for each connection that it can't accept."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _NO_ROOM:
            loop.default_exception_handler(context)
        elif time.monotonic() >= self._told_of_accept + _TOLD_EVERY:
            self._told_of_accept = time.monotonic()
            _log.warning("no room for connections", why=error.strerror, limit=self._descriptors)

    def _fail(self, error: BaseException) -> None:
        """Begin nothing more: the store takes no more writes. Say so until someone comes."""
        self._store_failed = str(error) or type(error).__name__
        self._core.lanes.stop()
        _log.error("the store failed; nothing more is taken or begun until a restart", why=self._store_failed)

    def _problems(self) -> Sequence[str]:
        """Give a sentence for all that is wrong."""
        problems = list(self._hindrances())
        if self._core.dispatcher.shortage:
            problems.append(f"connections to peers could not be opened: {self._core.dispatcher.shortage}")
        return problems

    def _hindrances(self) -> Sequence[str]:
        """Give a sentence for each reason why some mail is not taken."""
        problems = [] if self._listeners is None else list(self._listeners.problems())
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
        try:
            plan = plan_reload(self._path, self._settings, fit(load_settings(self._path), self._descriptors)[0])
        except ConfigError:
            self._instruments.note_reload(None)
            raise
        self._settings = plan.settings
        self._core.change(plan.settings)
        self._control.change(plan.settings.control)
        self._intake.after_halt = plan.settings.campaign.after_halt
        self._instruments.change(plan.settings.log)
        self._instruments.note_reload(len(plan.needs_restart))
        return ReloadReport(applied=plan.applied, needs_restart=plan.needs_restart)


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


def command_line() -> argparse.ArgumentParser:
    """Give what the command line takes; the manual page is made of it, too."""
    parser = argparse.ArgumentParser(
        prog="mtactld", description="Own a mail server's outbound queue. See mtactl(1) for the client."
    )
    parser.add_argument(
        "--config", type=Path, default=Path("/etc/mtactl/mtactl.toml"), metavar="FILE", help="the configuration file"
    )
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument("--version", action="version", version=f"mtactld {version('mtactl')}")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `mtactld`. Exits 0 at an orderly end, 78 for a bad configuration, 1 when it can't start."""
    chosen = command_line().parse_args(arguments)
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
    except (StoreError, ControlSocketError, TooFewDescriptors, OSError) as error:
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
