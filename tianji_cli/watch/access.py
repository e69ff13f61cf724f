"""Who may see the page: whoever knows its address, in a browser that was led to this machine by
name."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Sequence

LOOPBACK = "127.0.0.1"
HOST_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""At any port, since the page can come through a tunnel."""
TOKEN_BYTES = 32
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        b" img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        b" require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Of every answer: nothing comes from elsewhere, no text becomes markup or code, nobody frames it,
and the address is not passed on."""


def new_token() -> str:
    """A token that cannot be guessed, for the address of the page."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def has_own_host(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request names this machine as its host.

    A page elsewhere can make its own name lead here (DNS rebinding); then the browser names it.
    """
    hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
    if len(hosts) != 1:
        return False
    name, colon, port = hosts[0].rpartition(":")
    is_with_port = bool(colon) and port.isdecimal()
    return (name if is_with_port else hosts[0]) in HOST_NAMES


def path_within(path: str, token: str) -> str | None:
    """The path below the token, such as `/events`; None if the token is not the right one.

    Args:
        path: Of a request.
        token: The one of this page; compared in constant time.
    """
    given, slash, rest = path.removeprefix("/").partition("/")
    is_right = hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())
    return f"{slash}{rest}" if is_right else None


def refusal(method: str, headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, str] | None:
    """Status and words with which a request is refused, whatever its path; None if it is not."""
    if not has_own_host(headers):
        return 421, "This page is only here as http://127.0.0.1 or http://localhost.\n"
    if method not in ("GET", "HEAD"):
        return 405, "This page only shows.\n"
    return None
