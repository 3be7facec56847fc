"""Both event loops: a test that is marked here runs on asyncio's and on uvloop's."""

import asyncio
import functools
import inspect

import pytest
import uvloop

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_both_loops(test):
    """Turn an async test into two. Async fixtures can't be used in it, as each runner makes its own loop."""

    @functools.wraps(test)
    def run(loop_name, **arguments):
        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(test(**arguments))

    parameters = inspect.signature(test).parameters.values()
    own = inspect.Parameter("loop_name", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = inspect.Signature([*parameters, own])
    return pytest.mark.parametrize("loop_name", LOOPS)(run)
