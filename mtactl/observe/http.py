"""The HTTP listener for monitoring: /metrics, /healthz and /readyz, and nothing else."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from mtactl.observe.health import Answer, Health
from mtactl.observe.metrics import Metrics

__all__ = ["MonitoringServer"]


_MOST_CONNECTIONS = 32


class MonitoringServer:
    """Serves the metrics and the health of the node.

    `most` is how many connections there may be, so that clients who keep theirs take no descriptors from others; the
    oldest gives way to a new one. `backlog` is how many may wait to be accepted.
    """

    def __init__(self, metrics: Metrics, health: Health, *, most: int = _MOST_CONNECTIONS, backlog: int = 128) -> None:
        self._metrics = metrics
        self._health = health
        self._most = most
        self._backlog = min(backlog, 128)
        self._runner: web.AppRunner | None = None
        self._accepting: asyncio.Server | None = None

    async def start(self, listen: tuple[str, int] | socket.socket) -> tuple[str, int]:
        """Listen on an address (host "": all; port 0: any free one) or on a socket that is bound already.

        Gives the address that it listens on. Raises OSError.
        """
        application = web.Application()
        application.router.add_get("/metrics", self._get_metrics)
        application.router.add_get("/healthz", self._get_alive)
        application.router.add_get("/readyz", self._get_ready)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        server = runner.server
        assert server is not None

        def connect() -> web.RequestHandler:
            connections = server.connections
            if len(connections) >= self._most:
                connections[len(connections) - self._most].force_close()
            return server()

        loop = asyncio.get_running_loop()
        try:
            if isinstance(listen, socket.socket):
                self._accepting = await loop.create_server(connect, sock=listen, backlog=self._backlog)
            else:
                self._accepting = await loop.create_server(connect, listen[0] or None, listen[1], backlog=self._backlog)
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        host, port = self._accepting.sockets[0].getsockname()[:2]
        return host, port

    async def close(self) -> None:
        """Stop listening; what is being answered has a second to finish."""
        if self._accepting is not None:
            self._accepting.close()
            self._accepting = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _get_metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _get_alive(self, _request: web.Request) -> web.Response:
        return _respond(self._health.alive())

    async def _get_ready(self, _request: web.Request) -> web.Response:
        return _respond(self._health.ready())


def _respond(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, text=answer.text, headers={"Cache-Control": "no-store"})
