"""Postfix's smtp-sink, started for a test and ended by its process id."""

import asyncio
import os
from contextlib import asynccontextmanager


@asynccontextmanager
async def run_sink(port: int, *switches: str):
    """Run `smtp-sink SWITCHES 127.0.0.1:PORT 1024` until the block ends; it is listening when the block begins."""
    user = ("-u", "nobody") if os.geteuid() == 0 else ()
    sink = await asyncio.create_subprocess_exec(
        "smtp-sink", *user, *switches, f"127.0.0.1:{port}", "1024", stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await _wait_for(port, sink)
        yield
    finally:
        if sink.returncode is None:
            sink.terminate()
        await sink.wait()


async def _wait_for(port: int, sink: asyncio.subprocess.Process) -> None:
    for _ in range(200):
        assert sink.returncode is None, "smtp-sink ended at once"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise AssertionError("smtp-sink does not listen")
