"""What was meant: mistyped ids; and what a halt says before it is confirmed."""

import asyncio

from tests.integration.test_cli_halt import sending
from tests.world.control import serving
from tests.world.memory_node import MemoryNode
from tests.world.terminal import run, terminal


async def test_a_mistyped_campaign():
    """Broken: at two in the morning the right id is a second command away."""
    node = MemoryNode()
    for campaign in ("spring-sale", "Spring-Sale-2", "autumn", "x" * 120):
        node.accept(campaign, ["a@example.com"])
    async with serving(node) as api:
        for verb, typed, near in (
            ("show", "SPRING-SALE", "Did you mean spring-sale"),
            ("recipients", "spring-sale-2", "Did you mean Spring-Sale-2"),
            ("release", "nothing-like-it", "mtactl campaigns lists those that are known."),
        ):
            ended = await run(api.path, verb, typed)
            assert ended.code == 1
            assert near in ended.err, ended.err
        ended = await run(api.path, "--json", "show", "spring-sael")
        assert ended.json["type"] == "urn:mtactl:problem:unknown-campaign"
        async with terminal(api.path, "halt", "spring-sael") as screen:
            await screen.expect("spring-sael has not been seen on this node.")
            await screen.expect("Did you mean spring-sale")
            await screen.expect("go on (spring-sael): ")
            screen.type("spring-sale\n")
            assert await screen.end() == 2
        assert "halt" not in [verb for verb, _ in node.asked]


async def test_a_halt_says_what_it_is_about_to_do():
    """Broken: the id is typed by someone who does not see how much goes out now, and where to."""
    node = sending(queued=60, in_flight=4)

    async def deliver():
        while True:
            node.finish("c1")
            node.begin("c1", 1)
            await asyncio.sleep(0.05)

    async with serving(node) as api, terminal(api.path, "halt", "c1") as screen:
        await screen.expect("c1 on mx1: active")
        async with asyncio.TaskGroup() as group:
            delivering = group.create_task(deliver())
            await screen.expect("go on (c1): ")
            delivering.cancel()
        told = " ".join(screen.text.split())
        assert "deliveries a second; the queue would last" in told
        assert "queued for example.com" in told
        assert "4 in flight finish, new mail of it is refused, for ever" in told
        assert "rate now 0 " not in told


async def test_ctrl_c_while_it_looks_halts_nothing():
    """Broken: Ctrl-C before the question is a traceback, or a halt."""
    node = sending()
    async with serving(node) as api, terminal(api.path, "halt", "c1") as screen:
        await screen.expect("c1 on mx1: active")
        screen.type("\x03")
        assert await screen.end() == 2
        assert "Nothing was halted." in screen.text
        assert node.asked == []
