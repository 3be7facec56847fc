"""The HTTP listener for monitoring: /metrics, /healthz and /readyz, and nothing else."""

from __future__ import annotations

import socket

from aiohttp import web

from mtactl.observe.health import Answer, Health
from mtactl.observe.metrics import Metrics

__all__ = ["MonitoringServer"]


class MonitoringServer:
    """Serves the metrics and the health of the node."""

    def __init__(self, metrics: Metrics, health: Health) -> None:
        self._metrics = metrics
        self._health = health
        self._runner: web.AppRunner | None = None

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
        site: web.BaseSite
        if isinstance(listen, socket.socket):
            site = web.SockSite(runner, listen)
        else:
            site = web.TCPSite(runner, listen[0] or None, listen[1])
        try:
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        host, port = runner.addresses[0][:2]
        return host, port

    async def close(self) -> None:
        """Stop listening; what is being answered has a second to finish."""
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
