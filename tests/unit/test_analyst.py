"""Analyses are made one at a time, kept while nothing changes, and given up when nobody wants them any more."""

import asyncio
from pathlib import Path

import pytest

from mtactl import analyst as module
from mtactl.analyst import Analyst
from mtactl.core import Core
from mtactl.settings import Settings
from queue_store.store import QueueStore
from tests.unit.store_books import new_message
from tests.world.scripted_relay import ScriptedRelay


@pytest.fixture
async def core(tmp_path: Path, monkeypatch):
    """Give the parts of a daemon that does not deliver: forty recipients of a campaign wait in its store."""
    monkeypatch.setattr(module, "_PAGE", 5)
    store = await QueueStore.open(tmp_path, reserve=0, now=lambda: 5_000)
    core = Core(store=store, relay=ScriptedRelay(lambda _delivery: None), settings=Settings(), now=lambda: 5_000)
    for _ in range(20):
        message = new_message("c1", lanes=["a.org", "b.org"])
        core.enter(await store.append(message), message)
    yield core
    await store.close()


def counting(core: Core, monkeypatch) -> list[int]:
    """Give a list that grows with each page that the store counts."""
    pages: list[int] = []
    analyse = core.store.analyse

    async def counted(campaign, one_in, *, above, limit):
        pages.append(above)
        return await analyse(campaign, one_in, above=above, limit=limit)

    monkeypatch.setattr(core.store, "analyse", counted)
    return pages


async def test_what_was_made_is_kept_until_the_counts_change(core, monkeypatch):
    """Broken: a screen that looks each second has the daemon count millions each second; or it shows old numbers."""
    pages = counting(core, monkeypatch)
    analyst = Analyst(core)
    first = await analyst.analyse("c1")
    assert first.analysis.totals["waiting"] == 40
    made = len(pages)
    assert made >= 8
    assert await asyncio.gather(*(analyst.analyse("c1") for _ in range(3))) == [first] * 3
    assert len(pages) == made
    message = new_message("c1", lanes="c.org")
    core.enter(await core.store.append(message), message)
    second = await analyst.analyse("c1")
    assert second.analysis.totals["waiting"] == 41
    assert first.analysis.totals["waiting"] == 40


async def test_what_is_not_yet_on_disk_is_not_kept(core):
    """Broken: the report of a halt, which is final, lacks those whose outcome was on its way to the disk."""
    analyst = Analyst(core)
    core.ledger.accept("c1", 1)
    made = await analyst.analyse("c1")
    assert made.analysis.totals["waiting"] == 40
    assert await analyst.analyse("c1") is not made


async def test_it_ends_when_nobody_wants_it_any_more(core, monkeypatch):
    """Broken: each Ctrl-C of an impatient person leaves a walk over millions behind, and the next waits for it."""
    pages = counting(core, monkeypatch)
    analyst = Analyst(core)
    assert await analyst.analyse("c1", wanted=lambda: len(pages) < 3) is None
    assert len(pages) == 3
    assert (await analyst.analyse("c1")).analysis.totals["waiting"] == 40
