"""Plays the episodes of an evaluation: loads the policy once, and forks processes that play.

Started with `tethered`, and with the directory of its files (`news.py`). If the command dies, so
does this process, and with it those that it has forked. A process takes the next group of episodes
whenever it is free; which one it gets changes no result.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from engine.blame import told
from engine.control_protocol import Refused
from engine.errors import TianJiError, of_machine
from engine.host.process import describe_exit, die_with_parent, name_process
from engine.trace.checkpoint_choice import ChosenCheckpoint
from engine.trace.checkpoint_file import read_info
from tianji_cli.evaluation.news import QUEUE, REQUEST, News, Played, PlayRequest, Stepped
from tianji_cli.evaluation.plan import EpisodeGroup
from tianji_cli.evaluation.records import EpisodeRow, returns_within

if TYPE_CHECKING:
    from engine.trained.load import Trained

NUMBER_BYTES = 4
"""Of a group's number in the queue."""
TELL_EVERY_S = 0.5


def main() -> None:
    """See the module's first lines."""
    directory = Path(sys.argv[1])
    request = msgspec.json.decode((directory / REQUEST).read_bytes(), type=PlayRequest)
    faulthandler.enable()
    name_process("tj-evaluate")
    teller = _Teller(directory / "news-load.jsonl")
    try:
        trained = _load(request)
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        _end_with(error, teller, request)
    os._exit(_play_in_processes(directory, request, trained, teller))


def _load(request: PlayRequest) -> Trained:
    import torch

    # One thread for each process; and a pool of threads would not survive a fork.
    torch.set_num_threads(1)
    from engine.trained.load import load_trained
    from engine.trained.run import TrainedRun

    path = Path(request.checkpoint)
    chosen = ChosenCheckpoint(path, read_info(path), ())
    run = TrainedRun(Path(request.run), request.experiment, chosen)
    return load_trained(run, request.env_kwargs)


def _play_in_processes(
    directory: Path, request: PlayRequest, trained: Trained, teller: _Teller
) -> int:
    """Forks the processes and waits for them; the exit code."""
    queue = _queue(directory / QUEUE, len(request.groups))
    players = {
        _fork(number, directory, request, trained, queue) for number in range(request.num_processes)
    }
    while players:
        pid, status = os.wait()
        if pid not in players:
            continue  # an environment has started it, and left it
        players.remove(pid)
        cause, is_clean = describe_exit(status)
        if not is_clean:
            for other in players:
                os.kill(other, signal.SIGKILL)
            if os.WIFSIGNALED(status):
                teller.tell(_killed(cause, request))
            return 1
    return 0


def _killed(cause: str, request: PlayRequest) -> Refused:
    return Refused(
        exit_code=1,
        what=f"a process that played episodes {cause}",
        where=f"env.id {request.experiment.env.id}",
        fix="a kernel short of memory kills too: dmesg tells" if "SIGKILL" in cause else "",
    )


def _queue(path: Path, num_groups: int) -> int:
    """A descriptor whose offset all forks share: each read gives the next number to only one."""
    numbers = (number.to_bytes(NUMBER_BYTES, "little") for number in range(num_groups))
    path.write_bytes(b"".join(numbers))
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _fork(number: int, directory: Path, request: PlayRequest, trained: Trained, queue: int) -> int:
    """Forks a process that plays until no group is left; its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    own = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    die_with_parent(own)
    name_process(f"tj-play-{number}")
    teller = _Teller(directory / f"news-{number}.jsonl")
    try:
        while data := os.read(queue, NUMBER_BYTES):
            _play(request, trained, request.groups[int.from_bytes(data, "little")], teller)
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        _end_with(error, teller, request)
    os._exit(0)


def _play(request: PlayRequest, trained: Trained, group: EpisodeGroup, teller: _Teller) -> None:
    from engine.trained.episodes import PlayRules, play_group

    rules = PlayRules(request.is_sampled, request.max_env_steps)
    num_playing = group.count
    for ended in play_group(trained, group.count, request.seed + group.first, rules):
        teller.count(num_playing)
        num_playing -= len(ended)
        for one in ended:
            number = group.first + one.number
            row = EpisodeRow(
                episode=number,
                seed=request.seed + number,
                episode_return=one.episode_return,
                length_env_steps=one.length_env_steps,
                ended_by=one.ended_by,
                **returns_within(one.of_team),
            )
            teller.tell(Played(row=row))


class _Teller:
    """Appends to the file of one process.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._told_s = time.monotonic()
        self._env_steps = 0

    def tell(self, news: News) -> None:
        os.write(self._fd, msgspec.json.encode(news) + b"\n")

    def count(self, env_steps: int) -> None:
        """Counts env steps, and tells of them now and then."""
        self._env_steps += env_steps
        if time.monotonic() - self._told_s >= TELL_EVERY_S:
            self.tell(Stepped(env_steps=self._env_steps))
            self._told_s, self._env_steps = time.monotonic(), 0


def _end_with(error: BaseException, teller: _Teller, request: PlayRequest) -> NoReturn:
    """Tells of an error and ends this process."""
    traceback.print_exception(error)
    known = error if isinstance(error, TianJiError) else of_machine(error)
    if known is None:
        where = f"env.id {request.experiment.env.id}"
        teller.tell(Refused(exit_code=1, what=told(error), where=where, fix=""))
    else:
        teller.tell(
            Refused(exit_code=known.exit_code, what=known.what, where=known.where, fix=known.fix)
        )
    os._exit(1)


if __name__ == "__main__":
    main()
