"""The stream of what happens."""

import asyncio

import pytest

from mtactl.observe.events import EventBus


@pytest.fixture
def bus():
    """Give a bus with a small ring and small queues, and a clock that stands still."""
    return EventBus(now=lambda: 5, ring=3, backlog=4)


async def take(stream, count):
    """Take so many events from a stream, as (id, kind, data)."""
    events = [await asyncio.wait_for(anext(stream), 5) for _ in range(count)]
    return [(event.id, event.kind, dict(event.data)) for event in events]


async def settle():
    """Let readers come to where they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_latest_are_kept(bus):
    """A person who opens the stream wants to see what just happened; memory must not grow for it."""
    for number in range(5):
        bus.publish("halt", {"n": number})
    bus.publish("outcome", {})
    assert [(event.id, event.at, event.data["n"]) for event in bus.recent()] == [(3, 5, 2), (4, 5, 3), (5, 5, 4)]


async def test_following(bus):
    """Each reader gets each event, in order; nobody gets those from before it came."""
    bus.publish("halt", {"n": 0})
    assert not bus.followed
    one, other = bus.follow(), bus.follow()
    first, second = asyncio.ensure_future(take(one, 2)), asyncio.ensure_future(take(other, 1))
    await settle()
    assert bus.followed
    bus.publish("halt", {"n": 1})
    bus.publish("outcome", {"n": 2})
    assert await first == [(2, "halt", {"n": 1}), (3, "outcome", {"n": 2})]
    assert await second == [(2, "halt", {"n": 1})]
    await one.aclose()
    await other.aclose()
    assert not bus.followed


async def test_resuming(bus):
    """A reader that lost its connection must not miss the halt in between."""
    for number in range(3):
        bus.publish("halt", {"n": number})
    stream = bus.follow(1)
    assert await take(stream, 2) == [(2, "halt", {"n": 1}), (3, "halt", {"n": 2})]
    bus.publish("halt", {"n": 3})
    assert await take(stream, 1) == [(4, "halt", {"n": 3})]
    await stream.aclose()


async def test_resuming_too_late(bus):
    """What fell out of the ring is told as a gap, or the reader takes an incomplete story for the whole."""
    for number in range(6):
        bus.publish("halt", {"n": number})
    stream = bus.follow(1)
    assert await take(stream, 4) == [
        (1, "gap", {"missed": 2}),
        (4, "halt", {"n": 3}),
        (5, "halt", {"n": 4}),
        (6, "halt", {"n": 5}),
    ]
    await stream.aclose()


async def test_resuming_from_a_former_run(bus):
    """Ids begin again at a restart: a reader with an old, large one must not wait until they get there."""
    bus.publish("halt", {"n": 0})
    stream = bus.follow(1000)
    assert await take(stream, 1) == [(1, "halt", {"n": 0})]
    await stream.aclose()


async def test_a_slow_reader(bus):
    """A reader that does not read must not fill the memory, and must be told what it missed, and where."""
    stream = bus.follow()
    waiting = asyncio.ensure_future(take(stream, 1))
    await settle()
    bus.publish("halt", {"n": 1})
    await waiting
    for number in range(2, 9):
        bus.publish("outcome", {"n": number})
    assert await take(stream, 2) == [(4, "gap", {"missed": 3}), (5, "outcome", {"n": 5})]
    for number in range(9, 11):
        bus.publish("outcome", {"n": number})
    assert await take(stream, 5) == [
        (6, "gap", {"missed": 1}),
        (7, "outcome", {"n": 7}),
        (8, "outcome", {"n": 8}),
        (9, "outcome", {"n": 9}),
        (10, "outcome", {"n": 10}),
    ]
    await stream.aclose()


async def test_closing(bus):
    """A follower that never ends keeps the daemon from stopping."""

    async def follow():
        return [event.id async for event in bus.follow()]

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(follow())
        await settle()
        bus.publish("halt", {})
        await settle()
        bus.close()
    assert task.result() == [1]
    assert [event async for event in bus.follow()] == []


async def test_a_cancelled_reader(bus):
    """A reader whose client went away must be forgotten, or outcomes are built for nobody, for ever."""

    async def follow():
        async for _event in bus.follow():
            pass

    async with asyncio.TaskGroup() as group:
        task = group.create_task(follow())
        await settle()
        assert bus.followed
        task.cancel()
    await settle()
    assert not bus.followed


async def test_without_outcomes(bus):
    """Outcomes are built and sent by the thousand to a live screen that shows none of them; or a halt is left out."""
    stream = bus.follow(outcomes=False)
    waiting = asyncio.ensure_future(take(stream, 2))
    await settle()
    assert not bus.followed
    for number in range(20):
        bus.publish("outcome", {"n": number})
    bus.publish("halt", {"n": 20})
    bus.publish("hold", {"n": 21})
    assert await waiting == [(21, "halt", {"n": 20}), (22, "hold", {"n": 21})]
    await stream.aclose()


async def test_outcomes_that_nobody_asked_for_are_not_missed(bus):
    """A reader that comes back is told of a gap in what it does not read, or of none where a halt was forgotten."""
    bus.publish("halt", {"n": 0})
    for number in range(20):
        bus.publish("outcome", {"n": number})
    bus.publish("hold", {})
    stream = bus.follow(1, outcomes=False)
    assert await take(stream, 1) == [(22, "hold", {})]
    await stream.aclose()
    for _ in range(3):
        bus.publish("hold", {})
    stream = bus.follow(1, outcomes=False)
    assert await take(stream, 2) == [(1, "gap", {"missed": 21}), (23, "hold", {})]
    await stream.aclose()
