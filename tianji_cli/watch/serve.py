"""Serves the page on this machine's loopback address until the command is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from engine.errors import ConfigError
from tianji_cli.interrupts import ENDING
from tianji_cli.watch.access import LOOPBACK
from tianji_cli.watch.app import make_app
from tianji_cli.watch.feeds import LiveFeeds
from tianji_cli.watch.run_list import RunList

MAX_CONNECTIONS = 200
END_S = 1


def listen(port: int) -> socket.socket:
    """A socket at the loopback address, which no other machine can reach.

    Args:
        port: 0 for any that is free.

    Raises:
        ConfigError: The port is taken, or may not be used.
    """
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((LOOPBACK, port))
        server.listen()
    except OSError as error:
        server.close()
        raise ConfigError(
            f"port {port} cannot be used: {error.strerror}",
            where="--port",
            fix="choose another one, or leave --port out: then any free one is used",
        ) from error
    return server


class _Server(uvicorn.Server):
    """Leaves signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(runs: RunList, server: socket.socket, token: str, when_ready: Callable[[], None]) -> None:
    """Serves until SIGINT, SIGTERM or SIGHUP; then ends all streams at once.

    Args:
        runs: What is shown.
        server: From `listen`.
        token: Of the address.
        when_ready: Called once a request would be answered, and a signal would end it well.
    """
    asyncio.run(_serve(runs, server, token, when_ready))


async def _serve(
    runs: RunList, server: socket.socket, token: str, when_ready: Callable[[], None]
) -> None:
    feeds = LiveFeeds(runs)
    config = uvicorn.Config(
        make_app(feeds, token),
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,  # it would write the token down
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=END_S,
    )
    running = _Server(config)
    closing: list[asyncio.Task[None]] = []

    def end() -> None:
        running.should_exit = True
        closing.append(asyncio.ensure_future(feeds.close()))

    loop = asyncio.get_running_loop()
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under `nohup`
            loop.add_signal_handler(number, end)
    when_ready()
    await running.serve(sockets=[server])
    await asyncio.gather(*closing)
