"""Another installation of TianJi, such as an older checkout: what a change has gained or cost."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.search_path import module_command
from tianji_cli.bench.systems.base import (
    CellPaths,
    Command,
    Deviations,
    Installed,
    Job,
    SystemMissingError,
    SystemOptions,
)
from tianji_cli.bench.systems.probe import PROBE_S, probe
from tianji_cli.bench.systems.tianji import RUN, Tianji, experiment_of
from tianji_cli.bench.tasks.suite import OTHER, Task
from tianji_cli.git_state import git_state

REHEARSED_S = 90
"""How long it trains before its first cell: a former release takes 20 s of processor time, or 40 of
an older processor, to compile a function, and discards what is not done at the end."""
LATENCY_MS = 100
"""Of each env step meanwhile, so that the compilers have the cores."""
HOW_TO = (
    "give its interpreter, such as --other-tianji ../older/.venv/bin/python, or leave it out with"
    " --skip-missing"
)
_WHERE = "import engine; print(engine.__path__[0])"


class OtherTianji(Tianji):
    """`tianji up` of an interpreter that the user names, with TianJi's settings for a task."""

    name = OTHER
    title = "other TianJi"
    caveats = (
        "The other TianJi trains once before its first cell of a task, so that its functions are"
        " compiled, too.",
    )

    def prepare(self, options: SystemOptions, tasks: Sequence[Task] = ()) -> Installed:
        python = options.other_tianji
        if python is None:
            raise SystemMissingError("no other TianJi was named", where=OTHER, fix=HOW_TO)
        python = python.expanduser().absolute()
        modules = ["engine=tianji", "tianji_cli", "torch", "gymnasium"]
        found = probe(python, modules, system=self.title, fix=HOW_TO)
        state = git_state(_root_of(python))
        commit = "unknown" if state.commit is None else state.commit[:8]
        versions = {**found.versions, "commit": commit + " with changes" * bool(state.dirty)}
        del versions["tianji_cli"]
        return msgspec.structs.replace(found, versions=versions)

    def deviations(self, task: Task) -> Deviations:
        words = (
            "what it does with these settings, and defaults of keys that are not named, are its own"
        )
        return {**super().deviations(task), "algorithm": ("equal", words)}

    def rehearsal(self, job: Job, scratch: Path, installed: Installed) -> Command:
        settings = (f"stop.seconds={REHEARSED_S}", f"env.step_latency_ms={LATENCY_MS}")
        words = (word for setting in settings for word in ("-s", setting))
        return self._up(job, scratch, installed, *words)

    def command(self, job: Job, paths: CellPaths, installed: Installed) -> Command:
        return self._up(job, paths.root, installed)

    def _up(self, job: Job, root: Path, installed: Installed, *settings: str) -> Command:
        """The command, and its experiment in `root`."""
        experiment = root / "experiment.json"
        experiment.write_bytes(msgspec.json.encode(experiment_of(job)))
        words = (
            "up",
            "-x",
            str(experiment),
            "--name",
            RUN,
            "--results",
            str(root),
            "-q",
            *settings,
        )
        argv = module_command(installed.python, "tianji_cli.main", *words)
        return Command(argv, unset=("PYTHONPATH", "VIRTUAL_ENV"), ok_codes=(0, 130))


def _root_of(python: Path) -> Path:
    """The directory that it was installed from."""
    try:
        found = subprocess.run(
            [str(python), "-P", "-c", _WHERE],
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SystemMissingError(f"it does not start: {error}", where=str(python)) from error
    return Path(found.stdout.strip()).parent
