"""Weights & Biases, with the `wandb` package: one run there for each run here.

Each row of a table is one row of the run's history there; `trace/<table>` says which. A run that
goes on there (`resume`) tells the last values, hence where to continue. Offline nothing can be
continued: a tracker that begins again replaces what it has written and what was not synchronised.

Everything of `WANDB_*` works: `WANDB_MODE=offline`, `WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_DIR`.
The key stays in the environment or in W&B's own file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import wandb

from engine.trace.summary import Summary
from tianji_cli.storage.run_dir import RunPaths, from_here
from tianji_cli.tracking.facts import RunFacts, figures_of, words_of
from tianji_cli.tracking.hints import quoted
from tianji_cli.tracking.series import Sample

PROJECT = "tianji"
STEPS, TIME_S = "env_steps", "time_s"
INIT_S = 30.0
ROW = "trace/"
"""Begins the name of the number of a row."""


class WandbSink:
    """See the module's first lines.

    Args:
        paths: The run.
    """

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self.where = self.hint = ""

    def begin(self, facts: RunFacts) -> Mapping[str, int]:
        self._facts = facts
        directory = Path(os.environ.get("WANDB_DIR") or self._paths.tracking)
        settings = wandb.Settings(
            init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT") or INIT_S),
            console="off",
            disable_code=True,
            disable_git=True,
            silent=True,
            save_code=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        if _is_offline():
            _remove_former(directory / "wandb", facts.identity)
        self._run = wandb.init(
            id=facts.identity,
            name=facts.run_id,
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=os.environ.get("WANDB_RUN_GROUP") or facts.experiment,
            tags=[facts.tags[name] for name in ("algorithm", "env_id") if name in facts.tags],
            config={**facts.settings, **{f"run.{name}": v for name, v in facts.tags.items()}},
            dir=directory,
            resume=None if _is_offline() else "allow",
            settings=settings,
        )
        self._run.define_metric(STEPS)
        self._run.define_metric(f"{ROW}*", hidden=True)
        self._run.define_metric("*", step_metric=STEPS)
        self._say_where()
        known = {name: self._run.summary.get(name) for name in self._run.summary.keys()}  # noqa: SIM118 - it is no mapping
        return {
            name.removeprefix(ROW): int(value)
            for name, value in known.items()
            if name.startswith(ROW) and isinstance(value, int | float)
        }

    def _say_where(self) -> None:
        place = from_here(Path(self._run.dir).parent)
        if _is_offline():
            self.where, self.hint = str(place), f"wandb sync {quoted(place)}"
        else:
            self.where = self.hint = str(self._run.url or place)

    def write(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            about = {
                STEPS: sample.env_steps,
                TIME_S: sample.t_s,
                f"{ROW}{sample.table}": sample.row,
                "_timestamp": self._facts.unix_s(sample.t_s),
            }
            self._run.log({**sample.values, **about})

    def flush(self) -> None:
        """W&B's own process writes and sends, in its own time."""

    def end(self, facts: RunFacts, summary: Summary | None) -> None:
        if summary is not None:
            self._run.summary.update({f"summary/{k}": v for k, v in figures_of(summary).items()})
            self._run.summary.update({f"summary/{k}": v for k, v in words_of(summary).items()})
        has_failed = summary is not None and summary.status != "ok"
        self._run.finish(exit_code=int(has_failed))


def _is_offline() -> bool:
    """By the environment, or by what `wandb offline` has written down."""
    return wandb.setup().settings.mode in ("offline", "dryrun")


def _remove_former(directory: Path, identity: str) -> None:
    """Removes offline runs of this run that were not synchronised."""
    for former in directory.glob(f"offline-run-*-{identity}"):
        if not any(former.glob("*.synced")):
            shutil.rmtree(former, ignore_errors=True)
