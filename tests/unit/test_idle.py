"""Connections that wait for work: who is woken, and how often."""

import asyncio
import contextlib

from mtactl.schedule.idle import IdleConnections


async def run_waiters(idle, number, seconds=5.0):
    """Start so many that wait; give their tasks, in the order in which they began to."""
    tasks = [asyncio.create_task(idle.wait(seconds)) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


async def end(tasks):
    """End all of them."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_burst_wakes_as_many_as_there_is_work_for():
    """If it failed, each message of a burst would wake a connection for all those before it, for nothing."""
    idle = IdleConnections()
    tasks = await run_waiters(idle, 8)
    for waiting in (1, 2, 3):  # a push each, and none has run in between
        idle.wake(waiting)
    await asyncio.sleep(0)
    assert [task.done() and task.result() for task in tasks] == [True] * 3 + [False] * 5
    idle.wake(2)  # those before are at work or gone: what waits now is new
    await asyncio.sleep(0)
    assert sum(task.done() for task in tasks) == 5
    await end(tasks)


async def test_one_that_is_cancelled_as_it_is_woken_is_not_counted_for_ever():
    """If it failed, a lane whose connection ended at the wrong moment would wake one too few from then on."""
    idle = IdleConnections()
    first, second = await run_waiters(idle, 2)
    idle.wake(1)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    idle.wake(1)
    assert await asyncio.wait_for(second, 1) is True


async def test_one_that_is_cancelled_while_it_waits_is_passed_over():
    """If it failed, a message would wake a connection that is not there, and lie until the next one comes."""
    idle = IdleConnections()
    first, second = await run_waiters(idle, 2)
    await end([first])
    idle.wake(1)
    assert await asyncio.wait_for(second, 1) is True


async def test_all_are_woken_at_the_end():
    """If it failed, the daemon would wait for idle connections before it stops."""
    idle = IdleConnections()
    tasks = await run_waiters(idle, 3)
    idle.wake(1)
    idle.wake_all()
    assert await asyncio.gather(*tasks) == [True] * 3


async def test_a_wait_ends_by_itself():
    """If it failed, an idle connection would be kept for ever; or be let go before its time by an earlier one's."""
    idle = IdleConnections()
    short = await run_waiters(idle, 1, 0.02)
    long = await run_waiters(idle, 1, 5.0)
    assert await asyncio.wait_for(short[0], 1) is False
    assert not long[0].done()
    idle.wake(1)
    assert await asyncio.wait_for(long[0], 1) is True
