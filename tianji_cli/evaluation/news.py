"""What processes that play episodes are asked for, and what they tell; in files, line by line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import msgspec

from engine.control_protocol import Refused
from engine.spec import Experiment, Scalar
from tianji_cli.evaluation.plan import EpisodeGroup
from tianji_cli.evaluation.records import EpisodeRow

REQUEST = "request.json"
QUEUE = "groups"
OUTPUT = "output"
NEWS = "news-*.jsonl"


class PlayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The work of all processes of one evaluation."""

    run: str
    """Directory of the run."""
    experiment: Experiment
    checkpoint: str
    """JSON file of the checkpoint."""
    env_kwargs: dict[str, Scalar]
    seed: int
    is_sampled: bool
    max_env_steps: int
    groups: list[EpisodeGroup]
    num_processes: int


class Played(msgspec.Struct, frozen=True, kw_only=True, tag="episode"):
    """An episode has ended."""

    row: EpisodeRow


class Stepped(msgspec.Struct, frozen=True, kw_only=True, tag="steps"):
    """Env steps that a process has taken since it told the last time."""

    env_steps: int


News: TypeAlias = Played | Stepped | Refused
_decoder: msgspec.json.Decoder[News] = msgspec.json.Decoder(News)


class NewsReader:
    """Reads what all processes have told since the last look.

    Args:
        directory: Of their files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[Path, int] = {}
        """Bytes of each file so far."""

    def look(self) -> list[News]:
        """Complete lines; one that is still being written comes with the next look."""
        found: list[News] = []
        for path in sorted(self._directory.glob(NEWS)):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            found += map(_decoder.decode, whole.splitlines())
        return found
