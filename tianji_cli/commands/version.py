"""`tianji version`."""

from __future__ import annotations

import platform
from importlib import metadata

import msgspec

import engine
from tianji_cli.output import Output


class VersionDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `version --json` prints."""

    schema_version: int = 1
    tianji: str
    protocol: int
    python: str
    packages: dict[str, str]


def show_version(output: Output) -> None:
    """Prints what is installed."""
    document = VersionDocument(
        tianji=engine.__version__,
        protocol=engine.PROTOCOL_VERSION,
        python=platform.python_version(),
        packages={name: metadata.version(name) for name in engine.REQUIREMENTS},
    )
    if output.is_json:
        output.document(document)
        return
    packages = ", ".join(f"{name} {version}" for name, version in document.packages.items())
    output.data.print(
        f"tianji {document.tianji} (protocol {document.protocol}, Python {document.python};"
        f" {packages})",
        soft_wrap=True,
    )
