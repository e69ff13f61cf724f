"""What a tracker says of the places it writes to: commands to type, addresses without secrets."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tianji_cli.storage.masking import MASK

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
_ADDRESS = re.compile(r"URI$|URL$|PROXY$", re.IGNORECASE)
_OWN = ("WANDB_", "MLFLOW_", "AWS_", "AZURE_", "DATABRICKS_", "GOOGLE_", "HTTP", "http", "ALL_")
MIN_SECRET = 4
"""A shorter value would mask parts of ordinary words."""


def quoted(path: Path) -> str:
    return shlex.quote(str(path))


def without_password(address: str) -> str:
    """
    >>> without_password("postgresql://me:secret@db.example:5432/runs?sslkey=a")
    'postgresql://me:***@db.example:5432/runs'
    >>> without_password("sqlite:////results/mlflow.db"), without_password("databricks")
    ('sqlite:////results/mlflow.db', 'databricks')
    """
    scheme, colon, _ = address.partition(":")
    if not colon or not set("@?") & set(address):
        return address
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    name, has_password, _ = user.partition(":")
    place = f"{name}{f':{MASK}' if has_password else ''}{at}{host}"
    return urlunsplit((scheme, place, parts.path, "", ""))


def secrets_of(env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The values in an environment that a tracker may use and that nobody else may see: keys, and
    the passwords of addresses. The longest first."""
    found: set[str] = set()
    for name, value in env.items():
        if not name.startswith(_OWN):
            continue
        if _SECRET.search(name):
            found.add(value)
        elif _ADDRESS.search(name):
            user = value.partition("://")[2].rpartition("@")[0]
            found.update(filter(None, [user.partition(":")[2]]))
    return tuple(sorted((text for text in found if len(text) >= MIN_SECRET), key=len, reverse=True))


def masked_text(words: str, secrets: Iterable[str]) -> str:
    """A text without these secrets."""
    for secret in secrets:
        words = words.replace(secret, MASK)
    return words
