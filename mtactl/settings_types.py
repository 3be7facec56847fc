"""The types of the configuration's values: what a key takes, how it is read, and why a value is turned down.

From a file (`FROM_FILE` is pydantic's validation context) a quantity is text with its unit, and a bare number is turned
down, since nobody can see whether seconds or minutes were meant. From Python a quantity may also be given as what it is
kept as: seconds, bytes, recipients a second, a (host, port) pair.

Each type also says, as JSON schema, what it takes from a file (settings_schema makes one for editors of it).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from mtactl.quantities import (
    FORMS,
    LONGEST_DURATION,
    is_host,
    parse_duration,
    parse_header_name,
    parse_host_port,
    parse_lane_pattern,
    parse_mode,
    parse_nameserver,
    parse_network,
    parse_rate,
    parse_size,
    show_duration,
)

__all__ = [
    "FROM_FILE",
    "Address",
    "Count",
    "Duration",
    "DurationOrZero",
    "EhloName",
    "Group",
    "HeaderName",
    "LanePattern",
    "LineLength",
    "ListenAddress",
    "Mode",
    "Nameserver",
    "Network",
    "NodeName",
    "OptionalListenAddress",
    "Port",
    "Rate",
    "Reserve",
    "Size",
    "SocketPath",
    "StorePath",
    "TransactionSize",
    "describe",
]

FROM_FILE = "from a file"

_GROUP = re.compile(r"[^\x00-\x1f:,/]{1,255}")
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_SOCKET_PATH_BYTES = 107  # Linux's sun_path, less the NUL
_MANY = 1 << 60

_NOT_ZERO = {"not": {"type": "string", "pattern": "^[^1-9]*$"}}


def describe(value: object) -> str:
    """Name a value as someone who writes TOML would: 'the number 5', 'the text "x"', 'a table'."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return f'the text "{value if len(value) <= 60 else value[:59] + "…"}"'
        case list() | tuple():
            return "a list"
        case dict():
            return "a table"
        case dt.date() | dt.time():
            return "a date or time of day"
        case _:
            return type(value).__name__


def _validator(validate: Callable[..., object], **written: Any) -> PlainValidator:
    """Validate with a function; `written` is the JSON schema of what stands in the file."""
    return PlainValidator(validate, json_schema_input_type=Annotated[Any, WithJsonSchema(written)])


def _quantity(
    form: str, parse: Callable[[str], object], keep: Callable[[object], bool], limit: str = "", **written: Any
) -> PlainValidator:
    """Read text with `parse`; the value must pass `keep`, whose rule is told as `limit`."""

    def validate(value: object, info: ValidationInfo) -> object:
        parsed = parse(value) if isinstance(value, str) else value
        if not isinstance(value, str) and info.context == FROM_FILE:
            raise ValueError(f"{describe(value)} where {form} belongs")
        if not keep(parsed):
            raise ValueError(f"{describe(value)} can't be: it must be {limit or form}")
        return parsed

    return _validator(validate, type="string", **written)


def _text(form: str, parse: Callable[[str], object], **written: Any) -> PlainValidator:
    """Take text only, and read it with `parse`."""

    def validate(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f"{describe(value)} where {form} belongs")  # noqa: TRY004 - pydantic collects ValueErrors
        return parse(value)

    return _validator(validate, type="string", **written)


def _matching(form: str, fits: Callable[[str], object], **written: Any) -> PlainValidator:
    """Take text that `fits`."""

    def parse(text: str) -> str:
        if not fits(text):
            raise ValueError(f'"{text}" is not {form}')
        return text

    return _text(form, parse, **written)


def _whole(lowest: int, highest: int = _MANY, why: str = "") -> PlainValidator:
    """Take a whole number within limits; `why` says where they come from."""
    span = f"{lowest} or more" if highest == _MANY else f"from {lowest} to {highest}"

    def validate(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{describe(value)} where a whole number belongs")  # noqa: TRY004 - as above
        if not lowest <= value <= highest:
            raise ValueError(f"{value} can't be: it must be {span}{why and f' ({why})'}")
        return value

    limits = {"minimum": lowest} | ({} if highest == _MANY else {"maximum": highest})
    return _validator(validate, type="integer", **limits)


def _seconds(lowest: float) -> PlainValidator:
    def keep(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= LONGEST_DURATION

    return _quantity(
        'a time such as "90s"',
        parse_duration,
        keep,
        f"{show_duration(lowest)} or more",
        pattern=FORMS["duration"],
        **(_NOT_ZERO if lowest else {}),
    )


def _bytes(lowest: int, limit: str) -> PlainValidator:
    def keep(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= lowest

    return _quantity('a size such as "64MiB"', parse_size, keep, limit, pattern=FORMS["size"], **_NOT_ZERO)


def _is_pair(value: object) -> bool:
    match value:
        case (str(), int(port)):
            return 0 <= port <= 65535
    return False


def _is_rate(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value > 0)


def _is_mode(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= 0o777


def _is_ehlo_name(text: str) -> bool:
    return is_host(text[1:-1].removeprefix("IPv6:")) if text[:1] == "[" and text[-1:] == "]" else is_host(text)


def _parse_listen(text: str) -> tuple[str, int]:
    return parse_host_port(text, wildcard=True)


def _parse_listen_or_none(text: str) -> tuple[str, int] | None:
    return None if text.strip().lower() == "none" else parse_host_port(text, wildcard=True)


def _parse_route(text: str) -> tuple[str, int]:
    return parse_host_port(text, wildcard=False)


def _path(longest: int) -> PlainValidator:
    def validate(value: object, info: ValidationInfo) -> Path:
        if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
            raise ValueError(f"{describe(value)} where a path belongs")
        if info.context == FROM_FILE and not str(value).startswith("/"):
            raise ValueError(f'"{value}" would depend on the folder that the daemon is started in: begin with "/"')
        if len(str(value).encode()) > longest:
            raise ValueError(
                f"the path has {len(str(value).encode())} bytes, and {longest} are the most that are possible"
            )
        return Path(value)

    return _validator(validate, type="string", pattern=r"^/[^\x00]*$", maxLength=longest)


_LISTEN = 'an address such as "127.0.0.1:2525"'

Duration = Annotated[float, _seconds(0.001)]
DurationOrZero = Annotated[float, _seconds(0.0)]
Size = Annotated[int, _bytes(1, "one byte or more")]
Reserve = Annotated[int, _bytes(1 << 20, "1MiB or more, or a halt could not be made durable on a full disk")]
Rate = Annotated[
    float | None,
    _quantity(
        'a rate such as "100/s", or "none",',
        parse_rate,
        _is_rate,
        "above zero",
        pattern=FORMS["rate"],
        **{"not": {"type": "string", "pattern": r"^[\s0.]*/"}},
    ),
]
Mode = Annotated[int, _quantity('a file mode in quotes, such as "0660",', parse_mode, _is_mode, pattern=FORMS["mode"])]
Address = Annotated[
    tuple[str, int],
    _quantity('an address such as "127.0.0.1:2526"', _parse_route, _is_pair, pattern=FORMS["host_port"]),
]
ListenAddress = Annotated[tuple[str, int], _quantity(_LISTEN, _parse_listen, _is_pair, pattern=FORMS["listen"])]
OptionalListenAddress = Annotated[
    tuple[str, int] | None,
    _quantity(
        f'{_LISTEN}, or "none",',
        _parse_listen_or_none,
        lambda value: value is None or _is_pair(value),
        anyOf=[{"pattern": FORMS["listen"]}, {"pattern": r"^\s*[nN][oO][nN][eE]\s*$"}],
    ),
]
Count = Annotated[int, _whole(1)]
Port = Annotated[int, _whole(1, 65535)]
LineLength = Annotated[int, _whole(1000, 1 << 24, "RFC 5321 §4.5.3.1.6 promises 1000")]
TransactionSize = Annotated[int, _whole(1, 1000)]
EhloName = Annotated[
    str,
    _matching(
        "a host name or an address literal (RFC 5321 §4.1.3)",
        _is_ehlo_name,
        anyOf=[{"pattern": FORMS["host"]}, {"pattern": r"^\[[0-9A-Za-z:.%]+\]$"}],
    ),
]
NodeName = Annotated[
    str,
    _matching(
        "a node's name (letters, digits, '.', '_' and '-', at most 63)",
        _NODE_NAME.fullmatch,
        pattern=f"^{_NODE_NAME.pattern}$",
    ),
]
Group = Annotated[str, _matching("the name of a group", _GROUP.fullmatch, pattern=f"^{_GROUP.pattern}$")]
HeaderName = Annotated[str, _text("the name of a header field", parse_header_name, pattern=FORMS["header"])]
Nameserver = Annotated[str, _text("the address of a name server", parse_nameserver, pattern=FORMS["nameserver"])]
Network = Annotated[str, _text('a network such as "192.0.2.0/24"', parse_network, pattern=FORMS["network"])]
LanePattern = Annotated[str, _text("a domain, or a pattern for some,", parse_lane_pattern, pattern=FORMS["lane"])]
StorePath = Annotated[Path, _path(4000)]
SocketPath = Annotated[Path, _path(_SOCKET_PATH_BYTES)]
