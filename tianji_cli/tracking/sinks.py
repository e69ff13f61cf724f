"""What a tracker's adapter does, and the one for a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from engine.trace.summary import Summary
from tianji_cli.storage.run_dir import RunPaths
from tianji_cli.tracking.facts import RunFacts
from tianji_cli.tracking.series import Sample
from tianji_cli.tracking.tools import Tool


class TrackerSink(Protocol):
    """Writes one run to one tool. Any exception ends the tracker, and nothing else.

    Attributes:
        where: Where the run is now, without any secret: a directory or an address.
        hint: The command that shows it, or an address; empty if there is none.
    """

    where: str
    hint: str

    def begin(self, facts: RunFacts) -> Mapping[str, int]:
        """Opens the run there, or the same one again.

        Returns:
            By table, how many of its first rows are there already, and must not come again.
        """
        ...

    def write(self, samples: Sequence[Sample]) -> None:
        """Adds values; those of one table in the order of its rows."""
        ...

    def flush(self) -> None:
        """What was written is there, as far as the tool says."""
        ...

    def end(self, facts: RunFacts, summary: Summary | None) -> None:
        """Adds the summary, if there is one, and closes the run there."""
        ...


def make_sink(tool: Tool, paths: RunPaths) -> TrackerSink:
    """The adapter of a tool; imports its packages.

    Args:
        tool: Which.
        paths: The run; its directory `tracking/<tool>` exists.
    """
    if tool == "tensorboard":
        from tianji_cli.tracking.tensorboard_sink import TensorBoardSink

        return TensorBoardSink(paths)
    if tool == "wandb":
        from tianji_cli.tracking.wandb_sink import WandbSink

        return WandbSink(paths)
    from tianji_cli.tracking.mlflow_sink import MlflowSink

    return MlflowSink(paths)
