"""Serves the live page, and prints its address."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from urllib.parse import quote

import msgspec

from engine.envs.extras import install_command
from engine.errors import ConfigError
from tianji_cli.output import Output
from tianji_cli.storage.run_dir import in_unicode, resolve_run
from tianji_cli.streams import own_stdout
from tianji_cli.watch.access import LOOPBACK, new_token
from tianji_cli.watch.run_list import RunList

PACKAGES = ("starlette", "uvicorn")


class WatchDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `watch --json` prints, once the page can be opened.

    Attributes:
        url: Of the page; who knows it can see it.
        run_id: That the page begins with; null: the list.
    """

    schema_version: int = 1
    url: str
    port: int
    run_id: str | None


def watch_command(results: Path, name: str | None, port: int, output: Output) -> None:
    """Serves the page until the command is interrupted.

    Args:
        results: The directory that is shown.
        name: The run that the page begins with; None: the list.
        port: 0 for any that is free.
        output: The command's output.

    Raises:
        ConfigError: No such run, no such directory, a port that cannot be used, or packages that
            are missing.
    """
    need_packages()
    from tianji_cli.watch.serve import listen, serve

    run_id = None
    if name is not None:
        root = resolve_run(results, name).root
        results, run_id = root.parent, in_unicode(root.name)
    runs = RunList(results)
    runs.view()  # a directory that cannot be read is better told here than in a browser
    server, token = listen(port), new_token()
    document = WatchDocument(
        url=_url(server.getsockname()[1], token, run_id),
        port=server.getsockname()[1],
        run_id=run_id,
    )
    serve(runs, server, token, lambda: _tell(document, output))


def need_packages() -> None:
    """Raises ConfigError if the server's packages are not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the live page needs {' and '.join(missing)}",
            where="tianji watch",
            fix=install_command("watch", *PACKAGES),
        )


def _url(port: int, token: str, run_id: str | None) -> str:
    fragment = "" if run_id is None else f"#run={quote(run_id, safe='')}"
    return f"http://{LOOPBACK}:{port}/{token}/{fragment}"


def _tell(document: WatchDocument, output: Output) -> None:
    """Prints the address; on a machine that was reached by SSH, also how to get there."""
    if output.is_json:
        output.document(document)
        own_stdout().flush()  # whoever asked for it waits, and the command goes on
        return
    output.data.print(document.url, soft_wrap=True)
    output.data.file.flush()
    port = document.port
    if os.environ.get("SSH_CONNECTION"):
        output.say(f"from your own machine first: ssh -N -L {port}:{LOOPBACK}:{port} THIS_HOST")
    output.say("whoever has this address can see the page; Ctrl-C ends it")
