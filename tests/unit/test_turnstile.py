"""The turnstile: so many in a turn of the loop, in order."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mtactl.schedule.turnstile import Turnstile


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_turn_lets_only_so_many_through() -> None:
    """If this fails, a turn of the loop gets as long as there are peers who answer at once, and a halt waits for it."""
    turnstile = Turnstile(3)
    assert [turnstile.passes() for _ in range(5)] == [True, True, True, False, False]
    await turns(2)
    assert [turnstile.passes() for _ in range(5)] == [True, True, True, False, False]


async def test_those_who_wait_come_in_order_and_before_others() -> None:
    """If this fails, a connection can wait for ever while others begin one transaction after the other."""
    turnstile = Turnstile(2)
    assert turnstile.passes()
    assert turnstile.passes()
    waiting = [turnstile.wait() for _ in range(7)]
    for through in (2, 4, 6):
        assert not turnstile.passes()  # who comes now comes behind those
        await turns(1)
        assert [turn.done() for turn in waiting] == [True] * through + [False] * (7 - through)
    await turns(1)
    assert waiting[6].done()
    assert turnstile.passes()
    assert not turnstile.passes()


async def test_who_was_cancelled_takes_no_ones_place() -> None:
    """If this fails, connections that were cut use up the turns of those that are there."""
    turnstile = Turnstile(1)
    assert turnstile.passes()
    waiting = [turnstile.wait() for _ in range(4)]
    for turn in waiting[:3]:
        turn.cancel()
    await turns(3)
    assert waiting[3].done()


async def test_a_turnstile_that_nobody_uses_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, an idle daemon spins."""
    turnstile = Turnstile(2)
    assert turnstile.passes()
    await turns(4)
    loop = asyncio.get_running_loop()
    called: list[object] = []
    call_soon = loop.call_soon

    def count(callback: Callable[..., object], *given: object, **named: Any) -> asyncio.Handle:
        called.append(getattr(callback, "__self__", None))
        return call_soon(callback, *given, **named)

    monkeypatch.setattr(loop, "call_soon", count)
    await turns(3)
    assert turnstile not in called
    turnstile.passes()
    assert turnstile in called


async def test_a_shut_turnstile_lets_nobody_through_until_it_is_told() -> None:
    """If this fails, deliveries go on while the store is behind, and a halt waits for thousands of their outcomes."""
    shut = False
    turnstile = Turnstile(2, is_shut=lambda: shut)
    assert turnstile.passes()
    shut = True
    assert not turnstile.passes()
    waiting = [turnstile.wait() for _ in range(3)]
    await turns(5)
    assert not any(turn.done() for turn in waiting)
    shut = False
    turnstile.reopen()
    await turns(3)
    assert all(turn.done() for turn in waiting)
