"""A host that says what no keeper says is given up by name; nobody waits for it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from engine.errors import HostUnreachableError
from tianji_cli.connectors.base import AccessFacts
from tianji_cli.connectors.keeper.frames import encode
from tianji_cli.connectors.piped.link import KeeperLink
from tianji_cli.connectors.piped.node import PipedNode

NodeThatHears = Callable[..., PipedNode]
HELLO = {"id": 0, "op": "hello", "home": "/", "host": "h", "user": "u", "python": "3"}


class SocketChannel:
    def __init__(self, near: socket.socket) -> None:
        self._near = near
        near.settimeout(20)

    def read(self, max_bytes: int) -> bytes:
        return self._near.recv(max_bytes)

    def write(self, data: bytes) -> None:
        self._near.sendall(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            self._near.shutdown(socket.SHUT_RDWR)

    def last_words(self) -> str:
        return ""


@pytest.fixture
def node_that_hears() -> Iterator[NodeThatHears]:
    """Its host says hello, and then these frames, whatever it is asked."""
    near, far = socket.socketpair()
    link = KeeperLink("box", SocketChannel(near))

    def start(*frames: bytes) -> PipedNode:
        def answer() -> None:
            far.recv(1 << 16)
            far.sendall(b"".join(frames))

        far.sendall(encode({**HELLO, "num_cores": 1}))
        link.join()
        threading.Thread(target=answer, daemon=True).start()
        return PipedNode("box", lambda: link, AccessFacts(user="u", endpoint="box"))

    with near, far:
        yield start
        link.close()


@pytest.mark.parametrize(
    "answer",
    [
        {"op": "done"},
        {"id": 1},
        {"id": "1", "op": "done"},
        {"id": 1, "op": "surprise"},
        {"id": 1, "op": ["done"]},
        {"id": 1, "op": "more", "of": "in", "num_bytes": "many"},
        {"id": 1, "op": "eof"},
        {"id": 1, "op": "done", "error": "no number", "text": "?"},
        {"id": 0, "op": "hello"},
    ],
)
def test_a_strange_answer_ends_the_connection(
    node_that_hears: NodeThatHears, answer: dict[str, object]
) -> None:
    with pytest.raises(HostUnreachableError, match="what no keeper says") as caught:
        node_that_hears(encode(answer)).run(["true"], 20)
    assert caught.value.where == "box"


@pytest.mark.parametrize("answer", [{"id": 1, "op": "done"}, {"id": 1, "op": "done", "code": "0"}])
def test_the_end_of_a_command_says_its_code(
    node_that_hears: NodeThatHears, answer: dict[str, object]
) -> None:
    with pytest.raises(HostUnreachableError, match="what no keeper says"):
        node_that_hears(encode(answer)).run(["true"], 20)


def test_whether_a_file_exists_is_said(node_that_hears: NodeThatHears) -> None:
    with pytest.raises(HostUnreachableError, match="what no keeper says"):
        node_that_hears(encode({"id": 1, "op": "done"})).exists("/x")


def test_more_of_a_file_than_was_asked_for_is_not_taken(node_that_hears: NodeThatHears) -> None:
    with pytest.raises(HostUnreachableError, match="more than was asked for"):
        node_that_hears(encode({"id": 1, "op": "out"}, b"12345")).read("/x", 0, 4)


def test_sizes_are_numbers(node_that_hears: NodeThatHears) -> None:
    listed = encode({"id": 1, "op": "out"}, b"big /x\0")
    with pytest.raises(HostUnreachableError, match="lists files"):
        node_that_hears(listed, encode({"id": 1, "op": "done"})).walk("/")
