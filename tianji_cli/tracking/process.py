"""A tracker's process: `python -P -m engine.host.tether ... tianji_cli.tracking.process RUN TOOL`.

It reads what was appended to the run's tables once every `PERIOD_S`, about as often as the
coordinator writes them, and passes it on. Whatever its tool does, training never waits: nothing of
the run waits for this process, which has the lowest priority once its tool has opened the run. Its
standard input says when the run has ended (`END`), after which it reads the rest; if it just
closes, nobody wants it any more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from engine.errors import ConfigError, TianJiError
from engine.host.cores import step_back
from engine.host.end_signals import leave_sigterm_to_supervisor
from engine.host.process import name_process
from engine.trace.reader import read_summary
from engine.trace.records import (
    Consumption,
    Episode,
    Evaluation,
    Ledger,
    Merge,
    Record,
    Replay,
    Resources,
    Staleness,
)
from tianji_cli.analysis.run import read_manifest
from tianji_cli.storage.follow import TableFollower
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.storage.safe_files import locked
from tianji_cli.tracking.facts import RunFacts, facts_of
from tianji_cli.tracking.hints import masked_text, secrets_of
from tianji_cli.tracking.series import Sample, SampleStream
from tianji_cli.tracking.sinks import TrackerSink, make_sink
from tianji_cli.tracking.state import StateFile, directory_of
from tianji_cli.tracking.tools import Tool

PERIOD_S = 1.0
LEAVE_S = 5.0
"""Time to close what is open once nobody wants this process any more."""
END = b"end\n"
MAX_ERROR = 300
FOLLOWED: tuple[type[Record], ...] = (
    Ledger,
    Episode,
    Evaluation,
    Consumption,
    Staleness,
    Replay,
    Merge,
    Resources,
)


class Tracking:
    """Passes the tables of one run on to one tool.

    Args:
        paths: The run.
        facts: What its manifest says.
        sink: Where to.
        file: Where it is written down how far this has come.
    """

    def __init__(
        self, paths: RunPaths, facts: RunFacts, sink: TrackerSink, file: StateFile
    ) -> None:
        self._paths, self._facts, self._sink, self._file = paths, facts, sink, file
        self._followers = [TableFollower(paths.root, kind) for kind in FOLLOWED]
        self._stream = SampleStream(facts.replicas)
        self._problem = ""
        """Of the first table that could not be read, or not all of it."""
        self._known = dict(sink.begin(facts))
        file.write(where=sink.where, hint=sink.hint, rows=dict(self._known))

    def advance(self) -> bool:
        """Passes on a part of what was appended; bounded, so that the end is noticed.

        Returns:
            Whether there is more right now.

        Raises:
            TianJiError: A table was replaced: what was told of it is no longer true.
        """
        is_behind = False
        for follower in self._followers:
            found = follower.read()
            self._problem = self._problem or found.problem
            if found.is_restarted:
                raise TianJiError("a trace table was replaced", where=str(self._paths.trace))
            for row in found.rows:
                self._stream.take(row)
            is_behind |= found.is_behind
        self._pass_on(self._stream.ready())
        return is_behind

    def finish(self) -> None:
        """Passes on the rest. A run without a summary may not have ended: then it is partial.

        Raises:
            TianJiError: A table could not be read as a whole; what could is there.
        """
        while self.advance():
            pass
        summary = read_summary(self._paths.summary)
        if summary is not None:
            self._pass_on(self._stream.ready(is_complete=True))
        self._sink.end(self._facts, summary)
        if self._problem:
            raise TianJiError(self._problem)
        self._file.write(state="partial" if summary is None else "complete")

    def _pass_on(self, samples: Iterable[Sample]) -> None:
        new = [sample for sample in samples if sample.row > self._known.get(sample.table, 0)]
        if new:
            self._sink.write(new)
            self._sink.flush()
            rows = {sample.table: sample.row for sample in new}
            self._file.add(rows, sum(len(sample.values) for sample in new))


class _Command:
    """What standard input says, read in a thread: a tool can block for minutes.

    Attributes:
        said: Set once it has said something.
    """

    def __init__(self) -> None:
        self.said = threading.Event()
        self.has_ended = False
        self._input = os.dup(0)
        os.set_inheritable(self._input, False)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)  # tools and their processes must not read what is not for them
        os.close(nothing)
        threading.Thread(target=self._listen, name="command", daemon=True).start()

    def _listen(self) -> None:
        heard = b""
        while data := os.read(self._input, 64):
            heard += data
            if END in heard:
                self.has_ended = True
                self.said.set()
        if not self.has_ended:
            threading.Timer(LEAVE_S, os._exit, (1,)).start()
            self.said.set()


def track(paths: RunPaths, file: StateFile, command: _Command) -> None:
    """Follows a run until the command says that it has ended, or wants nothing any more.

    Raises:
        Exception: Whatever the tool raises.
    """
    facts = facts_of(paths.run_id, read_manifest(paths.manifest))
    tracking = Tracking(paths, facts, make_sink(file.state.tool, paths), file)
    step_back()  # not before: beside busy processes its tool would hardly begin
    while not command.said.is_set():
        if not tracking.advance():
            command.said.wait(PERIOD_S)
    tracking.finish()


def main() -> None:
    """See the module's first lines."""
    root, name = sys.argv[1:]
    paths, tool = RunPaths(Path(root)), cast(Tool, name)
    name_process(f"tj-{tool}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_sigterm_to_supervisor()  # here: to the command
    command, file = _Command(), StateFile(paths, tool)
    try:
        with locked(directory_of(paths, tool), _busy(paths, tool)):
            file.write()
            try:
                track(paths, file, command)
            except Exception as error:
                file.write(state="failed", error=words_of_error(error))
                raise
    except Exception as error:  # noqa: BLE001 - a tool may raise anything
        traceback.print_exc()
        print(f"error: {words_of_error(error)}", file=sys.stderr, flush=True)
        sys.exit(1)


def _busy(paths: RunPaths, tool: Tool) -> ConfigError:
    return ConfigError(f"another {tool} tracker of this run is at work", where=str(paths.root))


def words_of_error(error: Exception) -> str:
    """The first line of an error, without secrets."""
    words = str(error).strip() or type(error).__name__
    kind = "" if isinstance(error, TianJiError) else f"{type(error).__name__}: "
    return masked_text(f"{kind}{words.splitlines()[0]}", secrets_of())[:MAX_ERROR]


if __name__ == "__main__":
    main()
