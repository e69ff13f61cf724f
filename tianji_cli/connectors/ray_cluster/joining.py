"""Joins a cluster as its driver, once it is known to be the right one and closed to strangers."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
import socket
import subprocess
import sys

import msgspec
import ray

from engine.errors import HostUnreachableError, PreflightError
from engine.search_path import module_command
from tianji_cli.connectors.ray_cluster.identity import (
    MODE,
    TOKEN_FILE,
    TOKENS,
    Visit,
    check_releases,
    first_line,
)
from tianji_cli.connectors.ray_cluster.visiting import visit

CONNECT_S = 5.0
STRANGER_S = 20.0
_DOCS = "see docs/ray.md"


def join(address: str, *, is_open: bool) -> None:
    """Makes this process a driver of the cluster.

    Args:
        address: `HOST:PORT`.
        is_open: Whether a cluster without a token is accepted.

    Raises:
        HostUnreachableError: There is no cluster.
        PreflightError: It wants another token, or none; or this machine is no part of it.
        VersionMismatchError: It runs another release of Ray or Python.
    """
    _check_port(address)
    stranger = None if is_open else _send_stranger(address)
    try:
        _check_own(address)
        if stranger is not None:
            _check_stranger(stranger, address)
    finally:
        if stranger is not None:
            stranger.kill()
            stranger.communicate()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError, ValueError) as error:
        raise PreflightError(
            f"this machine cannot be a driver of the Ray cluster: {first_line(error)}",
            fix="run this on a node of the cluster, or with `ray job submit`; " + _DOCS,
        ) from error
    _ignore_signals()  # after Ray has set its own


def _ignore_signals() -> None:
    """Whoever ends a job signals every process of it at once. This one is needed until the run has
    ended gracefully, and then the command ends it by its input."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _check_port(address: str) -> None:
    """Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    try:
        with contextlib.closing(
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S)
        ):
            return
    except OSError as error:
        raise HostUnreachableError(
            f"no Ray cluster answers: {error.strerror or error}",
            fix="start one (ray start --head), or correct the `address` under `ray`; " + _DOCS,
        ) from error


def _check_own(address: str) -> None:
    try:
        found = visit(address)
    except Exception as error:
        raise HostUnreachableError(
            f"what listens there does not answer as a Ray cluster: {first_line(error)}",
            fix="correct the `address` under `ray`: HOST:PORT of `ray start --head`",
        ) from error
    if found.is_refused:
        has_token = os.environ.get(MODE) == "token"
        raise PreflightError(
            "the Ray cluster refuses "
            + ("this user's token" if has_token else "a driver without its token"),
            fix=f"copy the cluster's token to {TOKEN_FILE} (mode 600), or name its file in"
            " RAY_AUTH_TOKEN_PATH",
        )
    check_releases(found, ray.__version__, platform.python_version())


def _send_stranger(address: str) -> subprocess.Popen[bytes]:
    """Asks the cluster without a token, as anyone could who reaches its port."""
    env = {name: text for name, text in os.environ.items() if name not in TOKENS}
    return subprocess.Popen(
        module_command(sys.executable, f"{__package__}.visiting", address),
        env={**env, MODE: "disabled"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _check_stranger(stranger: subprocess.Popen[bytes], address: str) -> None:
    """Raises PreflightError unless the cluster has turned the stranger away."""
    try:
        said, errors = stranger.communicate(timeout=STRANGER_S)
    except subprocess.TimeoutExpired:
        said, errors = b"", b"no answer"
    try:
        if msgspec.json.decode(said, type=Visit).is_refused:
            return
    except msgspec.DecodeError:
        last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise PreflightError(
            f"whether the cluster keeps strangers out cannot be told: {last[:300]}",
            fix="`without_token: true` under `ray` skips this question; " + _DOCS,
        ) from None
    raise PreflightError(
        f"whoever reaches {address} can run programs on this Ray cluster: it asks for no token",
        fix="start it with RAY_AUTH_MODE=token; or, if nobody else reaches it, write"
        " `without_token: true` under `ray`; " + _DOCS,
    )
