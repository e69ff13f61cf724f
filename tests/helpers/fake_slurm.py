"""Stand-ins for Slurm's commands: programs on PATH that note what they are asked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PROGRAMS = {
    "sbatch": 'cat >"$FAKE/script"; echo "sbatch $*" >>"$FAKE/calls"\n'
    '[ -e "$FAKE/refusal" ] && { cat "$FAKE/refusal" >&2; exit 1; }; echo 42',
    "scontrol": 'echo "scontrol $*" >>"$FAKE/calls"\n'
    'cat "$FAKE/record" 2>/dev/null && exit\n'
    'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1',
    "sacct": 'echo "sacct $*" >>"$FAKE/calls"\n'
    'cat "$FAKE/accounts" 2>/dev/null && exit\n'
    'echo "Slurm accounting storage is disabled" >&2; exit 1',
    "scancel": 'echo "scancel $*" >>"$FAKE/calls"\n'
    '[ -e "$FAKE/after" ] && mv "$FAKE/after" "$FAKE/record"; exit 0',
}
RECORD = (
    "JobId=42 JobName=x JobState={state} Reason={reason} Dependency=(null) Requeue=1"
    " Restarts={restarts} BatchFlag=1 ExitCode={code} RunTime=00:01:23 TimeLimit=02:00:00"
    " StartTime={start} EndTime=Unknown Partition=main Account=(null) NodeList={nodes}"
    " BatchHost={batch_host} NumNodes=4 Command=(null)\n"
)


def record(
    state: str,
    *,
    reason: str = "None",
    restarts: int = 0,
    code: str = "0:0",
    start: str = "Unknown",
    nodes: str = "tj[1-4]",
    batch_host: str = "tj1",
) -> str:
    """What `scontrol --oneliner show job` says of a job."""
    return RECORD.format(
        state=state,
        reason=reason,
        restarts=restarts,
        code=code,
        start=start,
        nodes=nodes,
        batch_host=batch_host,
    )


@dataclass
class FakeSlurm:
    """The state of the stand-ins.

    Attributes:
        place: Their directory.
    """

    place: Path

    def install(self) -> str:
        """Writes the programs; returns PATH with them first."""
        programs = self.place / "bin"
        programs.mkdir()
        for name, script in _PROGRAMS.items():
            program = programs / name
            program.write_text(f"#!/bin/sh\nFAKE={self.place}\n{script}\n")
            program.chmod(0o755)
        return f"{programs}{os.pathsep}{os.environ['PATH']}"

    def says(self, text: str) -> None:
        """What `scontrol` says of the job from now on."""
        (self.place / "record").write_text(text)

    def says_after_cancel(self, text: str) -> None:
        """What it says once `scancel` was called."""
        (self.place / "after").write_text(text)

    def refuses(self, text: str) -> None:
        """What `sbatch` says instead of a number."""
        (self.place / "refusal").write_text(text)

    def accounts(self, text: str) -> None:
        """What `sacct` says."""
        (self.place / "accounts").write_text(text)

    @property
    def calls(self) -> list[str]:
        """How the programs were called, in order."""
        path = self.place / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def script(self) -> str:
        """The batch script that `sbatch` was given."""
        return (self.place / "script").read_text()
