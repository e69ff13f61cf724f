"""What Slurm says of a job, and what that means for a user. Pure.

Formats: `scontrol --oneliner show job`, `sacct --parsable2`; states as in squeue(1).
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

JobPhase = Literal["pending", "running", "ended", "forgotten"]

_PENDING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_RUNNING = {
    *("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "RESIZING", "SIGNALING"),
    *("STAGE_OUT", "STOPPED"),
}
_WHY = {
    "CANCELLED": "it was cancelled",
    "TIMEOUT": "its time limit was reached",
    "PREEMPTED": "another job has preempted it",
    "NODE_FAIL": "a node has failed",
    "OUT_OF_MEMORY": "a node ran out of memory",
    "BOOT_FAIL": "a node did not boot",
    "DEADLINE": "its deadline has passed",
}
_INTERRUPTED = 130
SACCT_FIELDS = "State,ExitCode,NodeList"


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """A job as Slurm knows it.

    Attributes:
        state: Slurm's word, such as `PENDING`; empty if Slurm knows the job no more.
        reason: Why it waits or has ended, in Slurm's words; empty if Slurm gives none.
        nodes: As Slurm writes them, such as `tj[1-4]`; those of its last run if it has ended.
        batch_host: Where its script runs or ran.
        elapsed, limit: Time since its start and time limit, as Slurm writes them.
        partition, account: Where it is accounted.
        starts_at: When a pending job is expected to start, as far as Slurm knows.
        restarts: How many times it was requeued.
        exit_code: Of the script; None while there is none.
    """

    state: str = ""
    reason: str = ""
    nodes: str = ""
    batch_host: str = ""
    elapsed: str = ""
    limit: str = ""
    partition: str = ""
    account: str = ""
    starts_at: str = ""
    restarts: int = 0
    exit_code: int | None = None

    @property
    def phase(self) -> JobPhase:
        if not self.state:
            return "forgotten"
        if self.state in _PENDING:
            return "pending"
        return "running" if self.state in _RUNNING else "ended"

    @property
    def is_over(self) -> bool:
        """Whether no process of it is left, and it does not start again."""
        return self.phase in ("ended", "forgotten")

    def words(self) -> str:
        """One line for the user, to follow `job 23`."""
        match self.phase:
            case "forgotten":
                return "has ended; Slurm knows it no more"
            case "pending":
                again = " again, after it was requeued" if self.restarts else ""
                why = f" ({self.reason})" if self.reason else ""
                when = f"; expected to start at {self.starts_at}" if self.starts_at else ""
                return f"is waiting{again}{why}{when}"
            case "running":
                verb = "is ending" if self.state == "COMPLETING" else "is running"
                times = f", for {self.elapsed} of {self.limit}" if self.limit else ""
                again = f", restarted {self.restarts} x" if self.restarts else ""
                return f"{verb} on {self.nodes}{times}{again}"
            case _:
                return f"has ended: {self._why()}"

    def _why(self) -> str:
        if self.state == "COMPLETED":
            return "completed"
        why = _WHY.get(self.state, "")
        if self.state == "FAILED" and self.exit_code is not None:
            code = self.exit_code
            why = "interrupted" if code == _INTERRUPTED else f"exit code {code}"
        return f"{why} ({self.state})" if why else self.state


FORGOTTEN = JobState()


def job_state(text: str) -> JobState:
    """The job of a record of `scontrol --oneliner show job`; a forgotten one if it holds none."""
    found = dict(re.findall(r"(?:^|\s)([A-Za-z][\w:/]*)=(\S*)", text))
    if not found.get("JobState"):
        return FORGOTTEN
    state = found["JobState"]
    is_pending = state in _PENDING
    return JobState(
        state=state,
        reason=_given(found.get("Reason", "")),
        nodes=_given(found.get("NodeList", "")),
        batch_host=_given(found.get("BatchHost", "")),
        elapsed=found.get("RunTime", ""),
        limit=found.get("TimeLimit", ""),
        partition=_given(found.get("Partition", "")),
        account=_given(found.get("Account", "")),
        starts_at=_given(found.get("StartTime", "")) if is_pending else "",
        restarts=int(found.get("Restarts", "0") or 0),
        exit_code=None if is_pending else _exit_code(found.get("ExitCode", "")),
    )


def job_state_of_accounting(text: str) -> JobState:
    """The same from `sacct --parsable2 --noheader --allocations --format=SACCT_FIELDS`.

    >>> job_state_of_accounting("CANCELLED by 0|0:15|tj[1-2]\\n").words()
    'has ended: it was cancelled (CANCELLED)'
    """
    for line in reversed(text.splitlines()):
        fields = line.split("|")
        if len(fields) == 3 and fields[0]:
            state, code, nodes = fields
            return JobState(state=state.split()[0], exit_code=_exit_code(code), nodes=_given(nodes))
    return FORGOTTEN


def _given(text: str) -> str:
    return "" if text in ("None", "(null)", "Unknown", "N/A", "None assigned") else text


def _exit_code(text: str) -> int | None:
    """`CODE:SIGNAL`; killed by a signal as a shell says it.

    >>> _exit_code("130:0"), _exit_code("0:9"), _exit_code("")
    (130, 137, None)
    """
    code, _, number = text.partition(":")
    if not code.isdigit() or not number.isdigit():
        return None
    return 128 + int(number) if number != "0" else int(code)
