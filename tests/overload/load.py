"""The application of an overload: it injects as fast as it is let, in a process of its own, until SIGTERM.

    python -m tests.overload.load --port PORT

The messages go in blocks of BLOCK over AT_ONCE campaigns, so the number of a message tells its campaign.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
from collections.abc import Iterator

from tests.world.injector import Injector
from tests.world.newsletter import Mail, sender_of

AT_ONCE = 10
BLOCK = 2_000
DOMAINS = tuple(f"{number}.overload.example" for number in range(10))
SIZES = (300, 700, 1_500, 3_000)


def campaign_of(number: int) -> str:
    """Give the campaign of a message."""
    return f"load-{number // BLOCK}-{number % AT_ONCE}"


def mails() -> Iterator[Mail]:
    """Give mail without end."""
    fillers = [("x" * 70 + "\r\n") * (size // 72) for size in SIZES]
    for number in itertools.count():
        campaign = campaign_of(number)
        recipient = f"{number}@{DOMAINS[number // AT_ONCE % len(DOMAINS)]}"
        head = f"X-Campaign-ID: {campaign}\r\nX-Test-Key: {number}\r\nFrom: a@news.example\r\nTo: {recipient}\r\n"
        data = f"{head}Subject: {number}\r\n\r\n{fillers[number % len(fillers)]}".encode()
        yield Mail(campaign, sender_of(campaign, number), recipient, data)


async def inject(port: int, connections: int) -> None:
    injector = Injector(port, connections=connections)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, injector.stop)
    await injector.inject(mails())


def main() -> None:
    parser = argparse.ArgumentParser(prog="overload.load")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=20)
    arguments = parser.parse_args()
    asyncio.run(inject(arguments.port, arguments.connections))


if __name__ == "__main__":
    main()
