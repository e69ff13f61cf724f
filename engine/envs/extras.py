"""The command that installs an optional package, in the way TianJi was installed."""

from __future__ import annotations

import json
import shlex
import sys
from importlib import metadata
from urllib.parse import unquote, urlparse

DISTRIBUTION = "tianji-rl"


def install_command(extra: str, *packages: str) -> str:
    """The command that installs an extra: TianJi is on no package index, so its name is not enough.

    Args:
        extra: Of TianJi, such as `atari`.
        packages: What it installs, for hosts that have only TianJi's sources.
    """
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    try:
        text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        origin = json.loads(text or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        origin = {}
    url = str(origin.get("url", ""))
    if origin.get("dir_info", {}).get("editable") and url.startswith("file:"):
        return f"{pip} -e {shlex.quote(f'{unquote(urlparse(url).path)}[{extra}]')}"
    return f"{pip} {shlex.join(packages)}"
