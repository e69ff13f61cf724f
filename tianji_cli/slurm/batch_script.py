"""The batch script of a submitted run: what `sbatch` is given. Pure.

Formats: sbatch(1). The script becomes `tianji up`, so that a signal to the batch script reaches it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.errors import ConfigError

JOB_LOG = "job.log"
"""What `up` says in the job, in the run's directory."""
DEFAULT_WARNING_S = 60
"""Time for a graceful end if the partition decides how long the job may take."""
MAX_WARNING_S = 120
_SHARE_OF_LIMIT = 10
_MIN_WARNING_S = 30
"""Below this Slurm's own SIGTERM at the limit has to do: signals come up to a minute early."""
_OWN = {
    "array": "a run is one job",
    "wrap": "the script is TianJi's",
    "output": f"what `up` says goes to {JOB_LOG} of the run",
    "error": f"what `up` says goes to {JOB_LOG} of the run",
    "parsable": "TianJi reads the answer of sbatch",
    "wait": "the command returns at once; `tianji logs -f` follows the run",
}
_OPTION = re.compile(r"[a-z][a-z0-9-]*(=[^\x00-\x1f\x7f]*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")


@dataclass(frozen=True)
class JobOptions:
    """What the user asks Slurm for; None leaves it to Slurm.

    Attributes:
        nodes: Number of nodes, or `MIN-MAX`.
        time: Time limit, in a form of sbatch(1).
        gpus_per_node: `2`, or `a100:2`.
        others: Further options of sbatch, without `--`.
    """

    nodes: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    gpus_per_node: str | None = None
    cpus_per_task: int | None = None
    others: Sequence[str] = field(default_factory=tuple)

    def directives(self) -> list[str]:
        """As in `#SBATCH --...`; the user's further ones last, since the last of two wins."""
        named = {
            "nodes": self.nodes,
            "time": self.time,
            "partition": self.partition,
            "account": self.account,
            "gpus-per-node": self.gpus_per_node,
            "cpus-per-task": self.cpus_per_task,
        }
        given = [f"{name}={value}" for name, value in named.items() if value is not None]
        for option in given:
            check_option(option, f"--{option.partition('=')[0]}")
        return [
            *given,
            *_signal(self.time),
            *(check_option(one, "--sbatch") for one in self.others),
        ]


def check_option(option: str, where: str) -> str:
    """An option of sbatch, without `--`.

    Raises:
        ConfigError: It is none, or one that the script of a run sets itself.
    """
    option = option.removeprefix("--")
    if not _OPTION.fullmatch(option):
        raise ConfigError(
            f"{option!r} is no option of sbatch",
            where=where,
            fix="write it as in a batch script, without `--`: --sbatch constraint=a100",
        )
    name = option.partition("=")[0]
    if name in _OWN:
        raise ConfigError(f"--{name} cannot be set: {_OWN[name]}", where=where, fix="leave it out")
    return option


def _signal(time: str | None) -> list[str]:
    warning_s = warning_of(time)
    return [f"signal=B:INT@{warning_s}"] if warning_s else []


def warning_of(time: str | None) -> int:
    """How long before its time limit a run is asked to stop, in seconds; 0: only at the limit.

    >>> warning_of("2:00:00"), warning_of("10"), warning_of("1"), warning_of(None)
    (120, 60, 0, 60)
    """
    limit_s = seconds_of(time)
    if limit_s is None:
        return DEFAULT_WARNING_S
    warning_s = min(MAX_WARNING_S, limit_s // _SHARE_OF_LIMIT)
    return warning_s if warning_s >= _MIN_WARNING_S else 0


def seconds_of(time: str | None) -> int | None:
    """A time limit of sbatch(1); None if there is none, or it is not one.

    >>> seconds_of("90"), seconds_of("1:30"), seconds_of("2:00:00"), seconds_of("1-12")
    (5400, 90, 7200, 129600)
    >>> seconds_of("1-12:30:15"), seconds_of("UNLIMITED")
    (131415, None)
    """
    match = _TIME.fullmatch(time or "")
    if match is None:
        return None
    numbers = [int(match[name]) for name in ("first", "second", "third") if match[name]]
    if match["days"]:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, minutes, seconds = 0, numbers[0], (numbers[1] if len(numbers) == 2 else 0)
    return ((int(match["days"] or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def batch_script(
    run_id: str, directory: str, run_dir: str, options: JobOptions, command: Sequence[str]
) -> str:
    """The script that starts a run, and continues it if Slurm has requeued the job.

    Args:
        run_id: The run's name.
        directory: Where the command is to run: that of its submission.
        run_dir: The run's directory, absolute; it need not exist on the nodes.
        options: What the user asks Slurm for.
        command: `tianji up ...` with all its arguments.

    Raises:
        ConfigError: An option cannot be used.
    """
    own = [
        f"job-name={run_id}",
        "ntasks-per-node=1",
        "requeue",
        "export=ALL",
        "output=/dev/null",
        f"chdir={directory}",
    ]
    lines = sbatch_lines([*own, *options.directives()])
    run_dir, words = shlex.quote(run_dir), shlex.join(command)
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "# Written by `tianji up --slurm --submit`. Results need not be on a shared disk.",
            f"mkdir -p {run_dir}",
            f"exec >>{run_dir}/{JOB_LOG} 2>&1 </dev/null",
            f"exec {words}",
            "",
        ]
    )


def sbatch_lines(options: Sequence[str]) -> list[str]:
    """The lines of a script that give these options, each as `name` or `name=value`.

    Raises:
        ConfigError: A value has a control character, which would end its line.
    """
    for option in options:
        if _CONTROL.search(option):
            name, _, value = option.partition("=")
            raise ConfigError(
                f"{value!r} cannot stand in a batch script", where=f"--{name}", fix="rename it"
            )
    return [f"#SBATCH --{_quoted(option)}" for option in options]


def _quoted(option: str) -> str:
    r"""As sbatch reads an option in a script: words as of a shell, but nothing is expanded.

    >>> print(_quoted("exclusive"), _quoted("nodes=4"), _quoted('comment=a "b" \\c'))
    exclusive nodes=4 comment="a \"b\" \\c"
    """
    name, is_given, value = option.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9_./@:+,-]*", value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        value = f'"{escaped}"'
    return f"{name}{is_given}{value}"
