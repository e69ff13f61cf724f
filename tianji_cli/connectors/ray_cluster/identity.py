"""What a cluster says of itself, and what this user has to show to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.errors import VersionMismatchError

MODE = "RAY_AUTH_MODE"
TOKEN_FILE = "~/.ray/auth_token"
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster's answer.

    Attributes:
        is_refused: It wants a token, or another one; otherwise it told its releases.
    """

    is_refused: bool
    ray_version: str = ""
    python_version: str = ""


def settle_mode(env: Mapping[str, str], has_file: bool) -> str:
    """Whether this user has a token for the cluster: what `ray` itself decides if it is not told.

    Args:
        env: Of this process.
        has_file: Whether there is a token file in the home directory.

    Returns:
        `token` or `disabled`, for the variable `MODE`. Ray reads it once, when it is loaded.
    """
    if env.get(MODE):
        return env[MODE]
    return "token" if has_file or any(env.get(name) for name in TOKENS) else "disabled"


def first_line(error: BaseException) -> str:
    """What is worth repeating of an error of Ray, which can fill a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def check_releases(found: Visit, ray_version: str, python_version: str) -> None:
    """Raises VersionMismatchError unless the cluster runs the same Ray and the same Python."""
    if (found.ray_version, found.python_version) != (ray_version, python_version):
        raise VersionMismatchError(
            f"the cluster runs Ray {found.ray_version} on Python {found.python_version}, here are"
            f" Ray {ray_version} and Python {python_version}; both must be the same",
            fix=f"run TianJi with that Python, and there: pip install 'ray=={found.ray_version}'",
        )
