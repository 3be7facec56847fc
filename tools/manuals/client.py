"""mtactl(1), from the client's tree of commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from mtactl.cli.main import EXIT_CODES, program
from tools.manuals.roff import Page, bold, italic, plain

__all__ = ["client_page", "walk"]

_ABOUT = "watch over the outbound queue of mtactld, and stop a campaign"

_WORDS = {
    "campaign": "The id that the injecting application puts on each message, in one of the headers of "
    "`campaign.headers`. Case matters. Mail without one belongs to no campaign and can't be halted by campaign.",
    "recipient": "What every count counts: one address of one message.",
    "in flight": "A recipient whose transaction has begun and has no outcome yet.",
    "lane": "The queue towards one destination, a domain, with its own connections, limits and back-off.",
    "halt": "Irreversible: nothing of the campaign begins on this node again, ever, whatever crashes, restarts or is "
    "injected. What is queued is dropped, what is in flight finishes and is counted. `hold` and `release` are the "
    "reversible pair.",
    "unknown": "Recipients whose connection, or whose daemon, died between the end of the message and the reply: they "
    "may have got it, and nobody can know.",
}

_ENVIRONMENT = {
    "MTACTL_SOCKET": "The control socket, where `--socket` is not given.",
    "NO_COLOR": "Set to anything: no colours. There are none on a pipe or where `TERM` is `dumb`, either.",
    "COLUMNS": "How wide a line may be. A pipe gets lines in full otherwise.",
    "TZ": "The time zone in which times are shown.",
    "_MTACTL_COMPLETE": "Set by the scripts that `mtactl completion` prints.",
}

_FILES = {
    "/run/mtactl/control.sock": "The control socket. Who may ask what is decided by the user and the groups of the "
    "caller: root, the daemon's own user and members of `control.operators` may do all, members of "
    "`control.observers` may read.",
    "/etc/mtactl/mtactl.toml": "The daemon's configuration, see mtactl.toml(5).",
}

_EXAMPLES = (
    ("Stop a campaign, and be asked for its id:", "mtactl halt spring-sale --reason 'wrong prices'"),
    (
        "The same in a script, waiting a minute at most:",
        "mtactl halt spring-sale --confirm spring-sale --timeout 60",
    ),
    ("Who got it after all:", "mtactl recipients spring-sale --outcome delivered --format csv > got-it.csv"),
    ("A page of the report, to hand on:", "mtactl show spring-sale --html spring-sale.html"),
    ("What waits for one destination, and why:", "mtactl queue ls --domain example.com --state deferred"),
    ("The same over HTTP:", "curl --unix-socket /run/mtactl/control.sock http://mtactl/v1/campaigns/spring-sale"),
)


def walk(command: click.Command, ctx: click.Context) -> Iterator[tuple[list[str], click.Command, click.Context]]:
    """Give each command below a group: its names (the first one is its own), itself, and its context."""
    if not isinstance(command, click.Group):
        return
    named: dict[int, list[str]] = {}
    for name in command.list_commands(ctx):
        found = command.get_command(ctx, name)
        if found is not None and not found.hidden:
            named.setdefault(id(found), []).append(name)
    for names in named.values():
        found = command.get_command(ctx, names[0])
        assert found is not None
        inner = click.Context(found, parent=ctx, info_name=names[0])
        if isinstance(found, click.Group):
            yield from (([f"{names[0]} {below[0]}", *below[1:]], each, at) for below, each, at in walk(found, inner))
        else:
            yield names, found, inner


def client_page() -> str:
    """Give the page."""
    page = Page("mtactl", 1, _ABOUT, group="User Commands")
    root = click.Context(program, info_name="mtactl")
    page.section("Synopsis")
    page.synopsis(f"{bold('mtactl')} [{bold('--socket')} {italic('PATH')}] [{bold('--json')}] {italic('COMMAND')} ...")
    page.section("Description")
    page.paragraph(
        "mtactl asks mtactld(8), the daemon that owns a mail server's outbound queue, over its control socket. It "
        "shows what becomes of the mail, and it can stop a campaign: from the answer on, nothing more of it goes out."
    )
    for word, told in _WORDS.items():
        page.item(bold(word), told)
    page.section("Options")
    _write_options(page, program, root)
    page.section("Commands")
    for names, command, ctx in walk(program, root):
        _write_command(page, names, command, ctx)
    page.section("Exit status")
    for code, told in EXIT_CODES.items():
        page.item(bold(str(int(code))), f"{told[0].upper()}{told[1:]}.")
    page.item(bold("130"), "Interrupted with Ctrl-C. A halt that was answered goes on.")
    for title, facts in (("Environment", _ENVIRONMENT), ("Files", _FILES)):
        page.section(title)
        for name, told in facts.items():
            page.item(bold(name) if title == "Environment" else italic(name), told)
    page.section("Examples")
    for told, line in _EXAMPLES:
        page.paragraph(told)
        page.verbatim([line])
    page.section("See also")
    page.paragraph("mtactld(8), mtactl.toml(5)")
    return str(page)


def _write_command(page: Page, names: list[str], command: click.Command, ctx: click.Context) -> None:
    page.subsection(f"mtactl {names[0]}")
    pieces = [plain(piece) for piece in command.collect_usage_pieces(ctx)]

    page.synopsis(" ".join([bold(f"mtactl {names[0]}"), *pieces]))
    if len(names) > 1:
        page.paragraph(f"Other names: {', '.join(f'`{name}`' for name in names[1:])}.")
    page.paragraphs(inspect.cleandoc(command.help or ""))
    _write_options(page, command, ctx)


def _write_options(page: Page, command: click.Command, ctx: click.Context) -> None:
    for parameter in command.get_params(ctx):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            record = parameter.get_help_record(ctx)
            assert record is not None
            page.item(bold(record[0]), record[1])
