"""mtactld(8), from the daemon's parser of its command line."""

from __future__ import annotations

import argparse

from mtactl.app import command_line
from tools.manuals.roff import Page, bold, italic

__all__ = ["daemon_page"]

_EXIT_STATUS = {
    "0": "An orderly end, or `--check` found nothing wrong.",
    "1": "It can't start: the store can't be opened, or an address can't be listened on. The log says why.",
    "78": "The configuration can't be used. Each mistake is named with its line and the reason, all at once.",
}
_SIGNALS = {
    "SIGTERM, SIGINT": "Begin nothing more, let transactions in flight finish within `delivery.shutdown_timeout`, end.",
    "SIGHUP": "Read the configuration again, as `mtactl reload` does. A bad file changes nothing.",
}
_FILES = {
    "/etc/mtactl/mtactl.toml": "The configuration, see mtactl.toml(5).",
    "/var/lib/mtactl": "The store: the queue, the outcomes and the halts. One daemon at a time has it open.",
    "/run/mtactl/control.sock": "The control socket, which mtactl(1) asks.",
}


def daemon_page() -> str:
    """Give the page."""
    parser = command_line()
    page = Page("mtactld", 8, "own a mail server's outbound queue", group="System Administration")
    page.section("Synopsis")
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]  # noqa: SLF001
    page.synopsis(" ".join([bold("mtactld"), *(f"[{_tag(action, 1)}]" for action in actions)]))
    page.section("Description")
    page.paragraph(
        "mtactld takes mail by SMTP, keeps it in a durable queue, delivers it, and can stop a campaign at once and for "
        "ever. It runs in the foreground and logs to the standard error stream; mtactl(1) is its client."
    )
    page.paragraph(
        "A message that was answered with 250 is durable on disk, and so is a halt that was answered. The counts of "
        "each campaign balance at every instant, also after a crash: accepted = queued + in flight + delivered + "
        "bounced + expired + dropped + unknown."
    )
    page.section("Options")
    for action in actions:
        default = "" if action.default in (None, argparse.SUPPRESS, False) else f" Default: {action.default}."
        told = (action.help or "").rstrip(".")
        page.item(_tag(action), f"{told[0].upper()}{told[1:]}.{default}")
    page.section("Signals")
    for name, told in _SIGNALS.items():
        page.item(bold(name), told)
    page.section("Service manager")
    page.paragraph(
        "Under systemd(1) it tells when it is ready, what it does (the status line), that it is alive (the watchdog), "
        "and takes its listening sockets by the names `smtp`, `control` and `metrics`."
    )
    page.section("Exit status")
    for code, told in _EXIT_STATUS.items():
        page.item(bold(code), told)
    page.section("Files")
    for name, told in _FILES.items():
        page.item(italic(name), told)
    page.section("See also")
    page.paragraph("mtactl(1), mtactl.toml(5), systemd(1)")
    return str(page)


def _tag(action: argparse.Action, most: int | None = None) -> str:
    value = "" if action.nargs == 0 else f" {italic(str(action.metavar or action.dest.upper()))}"
    return ", ".join(f"{bold(name)}{value}" for name in action.option_strings[:most])
