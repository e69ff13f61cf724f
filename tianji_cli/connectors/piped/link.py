"""The near end of a keeper's channel: requests from any thread, answers to whoever asked."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import DeadlineError, HostUnreachableError, PreflightError
from tianji_cli.connectors.keeper.frames import WINDOW_BYTES, Decoder, FrameError, encode
from tianji_cli.connectors.piped.answers import check_answer
from tianji_cli.connectors.piped.call import Call, Frame
from tianji_cli.connectors.piped.channel import ByteChannel
from tianji_cli.connectors.piped.program import NO_PYTHON, KeeperProgram, keeper_program

READ_BYTES = 1 << 18
LEASE_S = 20.0
"""A keeper that hears nothing for so long ends: nothing else can tell it that this host died."""
BEATS = 5
"""In a lease."""
START_S = 30.0
MAX_NOISE_BYTES = 1 << 20
"""What a login shell may say before the keeper does."""


class KeeperNotStartedError(Exception):
    """What was started is no keeper.

    Attributes:
        said: Its output, also that on standard error.
    """

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class KeeperLink:
    """A channel to a keeper that answers.

    Args:
        name: The host's, for errors.
        channel: To a program that was only just started.

    Attributes:
        facts: What the keeper said of its host when it began: `home`, `user`, `host`, `python`,
            `num_cores`, `gpus` (CUDA_VISIBLE_DEVICES, or None).
    """

    def __init__(self, name: str, channel: ByteChannel) -> None:
        self.name = name
        self.facts: dict[str, Any] = {}
        self._channel = channel
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._registering, self._sending = threading.Lock(), threading.Lock()
        self._words: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._said = bytearray()
        self._decoder: Decoder | None = None
        self._mark = b""
        self._reason: str | None = None
        self._over = threading.Event()
        self._unanswered = 0

    def start(self, program: KeeperProgram, timeout_s: float) -> None:
        """Waits for the program, gives it its source, and waits for its first answer.

        Raises:
            KeeperNotStartedError: It is no keeper.
            PreflightError: There is no interpreter.
            DeadlineError: It takes longer.
            HostUnreachableError: The connection broke.
        """
        until_s = time.monotonic() + timeout_s
        self._mark = program.mark.encode()
        self._start_listening()
        word = self._next_word(until_s)
        if word == NO_PYTHON:
            raise PreflightError(
                "there is no Python", where=self.name, fix="install Python 3.8 or newer there"
            )
        with self._sending:
            self._write(program.source)
        self._next_word(until_s)

    def join(self) -> None:
        """Waits for the first answer of a keeper that runs already."""
        self._decoder = Decoder()
        self._start_listening()
        self._next_word(time.monotonic() + START_S)

    def _start_listening(self) -> None:
        threading.Thread(target=self._listen, name=f"keeper {self.name}", daemon=True).start()

    def _next_word(self, until_s: float) -> bytes:
        try:
            word = self._words.get(timeout=max(0.0, until_s - time.monotonic()))
        except queue.Empty:
            raise DeadlineError(
                "its keeper did not start in time", where=self.name, fix="see `tianji check`"
            ) from None
        if word is None:
            texts = (self._said.decode("utf-8", "replace"), self._channel.last_words())
            raise KeeperNotStartedError("\n".join(text.strip() for text in texts if text.strip()))
        return word

    def beat(self, lease_s: float) -> None:
        """Shows the keeper regularly that this program is alive, in a thread, and gives it up if it
        does not answer for as long as it would wait: not every way to a host ends with it."""

        def beat() -> None:
            with contextlib.suppress(HostUnreachableError):
                while not self._over.wait(lease_s / BEATS):
                    if self._unanswered > BEATS:
                        self._end(f"nothing has come for {lease_s:.0f} s")
                        return
                    self._unanswered += 1
                    self.send({"id": 0, "op": "beat"})

        threading.Thread(target=beat, name=f"beat {self.name}", daemon=True).start()

    def call(self, op: str, request: Mapping[str, object], window: int = WINDOW_BYTES) -> Call:
        """Makes a request.

        Args:
            op, request: See `tianji_cli.connectors.keeper`.
            window: Most bytes of its input that are under way.

        Raises:
            HostUnreachableError: The connection broke.
        """
        with self._registering:
            if self._reason is not None:
                raise self.unreachable()
            number = next(self._numbers)
            call = self._calls[number] = Call(self, op, number, window)
        call.say(op, b"", **request)
        return call

    def send(self, header: Mapping[str, object], body: bytes = b"") -> None:
        """Sends a frame.

        Raises:
            HostUnreachableError: The connection broke.
        """
        frame = encode(dict(header), body)
        with self._sending:
            if self._reason is not None:
                raise self.unreachable()
            self._write(frame)

    def _write(self, data: bytes) -> None:
        try:
            self._channel.write(data)
        except (OSError, EOFError) as error:
            self._end(str(error) or type(error).__name__)
            raise self.unreachable() from error

    def unreachable(self, reason: str = "") -> HostUnreachableError:
        """The error for a connection that broke, with what else was said there."""
        lines = self._channel.last_words().splitlines()[-5:]
        said = "".join(f"\n    {line}" for line in lines)
        return HostUnreachableError(
            f"the connection broke: {reason or self._reason}{said}",
            where=self.name,
            fix="see `tianji check`",
        )

    def close(self) -> None:
        """Ends the keeper's input, which ends the streams of all commands. Does not wait."""
        self._end("it was closed here")

    def _end(self, reason: str) -> None:
        """No frame comes or goes any more."""
        with self._registering:
            if self._reason is None:
                self._reason = reason
            calls = list(self._calls.values())
            self._calls.clear()
        self._over.set()
        for call in calls:
            call.take(None)
        self._channel.close()

    def _listen(self) -> None:
        reason = "its keeper ended"
        try:
            while data := self._channel.read(READ_BYTES):
                self._unanswered = 0
                if self._reason is None:
                    self._hear(data)
        except (OSError, EOFError) as error:
            reason = str(error) or type(error).__name__
        self._words.put(None)
        self._end(reason)

    def _hear(self, data: bytes) -> None:
        """Takes frames, or, before they begin, looks for the line with the mark."""
        if self._decoder is None:
            self._said += data
            _, found, after = bytes(self._said).partition(b"\n%s " % self._mark)
            word, is_whole, data = after.partition(b"\n")
            if not found or not is_whole:
                del self._said[:-MAX_NOISE_BYTES]
                return
            self._said.clear()
            if word != NO_PYTHON:
                self._decoder = Decoder()
            self._words.put(word)
        if self._decoder is not None:
            try:
                for frame in self._decoder.feed(data):
                    self._sort(frame)
            except FrameError as error:
                self._said[:] = error.args[0]
                self._words.put(None)
                self._end(f"it says what no keeper says: {error.args[0]!r}")

    def _sort(self, frame: Frame) -> None:
        header = frame[0]
        check_answer(header)
        number, op = header["id"], header["op"]
        if op == "hello":
            self.facts = header
            self._words.put(b"hello")
            return
        with self._registering:
            call = self._calls.get(number)
            if call is not None:
                check_answer(header, call.request)
                if op == "done":
                    del self._calls[number]
        if call is not None:
            call.take(frame)


def start_keeper(
    name: str,
    open_channel: Callable[[KeeperProgram], ByteChannel],
    *,
    lease_s: float | None = LEASE_S,
    timeout_s: float = START_S,
) -> KeeperLink:
    """Starts a keeper.

    Args:
        name: The host's, for errors.
        open_channel: Starts the program, and returns its standard streams.
        lease_s: Longest silence after which the keeper gives this program up; None where it always
            notices the end of its input, so that nothing has to be said.
        timeout_s: Time-out for its first answer.

    Raises:
        KeeperNotStartedError: What was started is no keeper.
        PreflightError: There is no interpreter.
        DeadlineError: It takes longer.
        HostUnreachableError: The connection broke.
    """
    program = keeper_program(lease_s)
    try:
        link = KeeperLink(name, open_channel(program))
    except OSError as error:
        raise KeeperNotStartedError(f"{error.filename}: {error.strerror}") from error
    try:
        link.start(program, timeout_s)
    except BaseException:
        link.close()
        raise
    if lease_s is not None:
        link.beat(lease_s)
    return link
