"""The page as an ASGI application: an HTML file, its styles and scripts, and a stream of events."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tianji_cli.watch.access import HEADERS, path_within, refusal
from tianji_cli.watch.feeds import LiveFeeds

PAGE = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_UNKNOWN = "This is not the address that `tianji watch` has printed.\n"


def make_app(feeds: LiveFeeds, token: str) -> ASGIApp:
    """The application.

    Args:
        feeds: What it shows.
        token: Under which it shows it.
    """
    files = static_files()

    async def page(_: Request) -> Response:
        return Response(files[PAGE], media_type=_TYPES[".html"])

    async def static(request: Request) -> Response:
        name = str(request.path_params["name"])
        if name not in files or name == PAGE:
            return PlainTextResponse("There is no such file.\n", 404)
        return Response(files[name], media_type=_TYPES[name[name.rindex(".") :]])

    async def events(request: Request) -> Response:
        run_id, log = (request.query_params.get(key, "") for key in ("run", "log"))
        return StreamingResponse(feeds.stream(run_id, log), media_type="text/event-stream")

    routes = [
        Route("/", page),
        Route("/static/{name}", static),
        Route("/events", events),
    ]
    return Guard(Starlette(routes=routes), token)


def static_files() -> dict[str, bytes]:
    """All files of the page, by name: nothing else is ever served as a file."""
    folder = resources.files("tianji_cli.watch") / "static"
    return {
        entry.name: entry.read_bytes()
        for entry in folder.iterdir()
        if entry.is_file() and entry.name.endswith(tuple(_TYPES))
    }


class Guard:
    """Lets through what has the token and names this machine; hardens all answers.

    Args:
        app: Behind it; sees paths without the token.
        token: The first part of all paths.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        app, inner = self._choose(scope)
        await app(inner, receive, send_hardened)

    def _choose(self, scope: Scope) -> tuple[ASGIApp, Scope]:
        """Who answers, and what is asked of it."""
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        refused = refusal(scope["method"], headers)
        if refused is not None:
            status, words = refused
            return PlainTextResponse(words, status), scope
        path = path_within(scope["path"], self._token)
        if path is None:
            return PlainTextResponse(_UNKNOWN, 403), scope
        if not path:
            return RedirectResponse(f"/{self._token}/"), scope
        return self._app, {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
