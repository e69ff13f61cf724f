"""Whether times of the runs of a study can be compared: only on the same cores, each run alone."""

from __future__ import annotations

from collections.abc import Sequence

from engine.wording import plural
from tianji_cli.analysis.run import ManifestView
from tianji_cli.bench.study.records import StudyRun

Hardware = tuple[tuple[str, str, str], ...]


def why_no_times(runs: Sequence[StudyRun]) -> str | None:
    """Why times, rates and returns over time of these runs are not compared; None if they can be.

    Args:
        runs: Of one task.
    """
    if shared := sum(run.num_beside > 0 for run in runs):
        return f"{shared} of {plural(len(runs), 'run')} shared the cores with other runs"
    kinds = list(dict.fromkeys(filter(None, map(hardware_of, runs))))
    if len(kinds) > 1:
        names = "; ".join(_name(kind) for kind in kinds)
        return f"the runs were made on different kinds of hosts: {names}"
    return None


def hardware_of(run: StudyRun) -> Hardware:
    """Processor, number of cores and GPUs of each host of a run, in order of the run; empty if it
    has not come so far."""
    hosts = ManifestView(run.manifest).section("hosts")
    return tuple(
        (_fact(facts, "cpu_model"), _fact(facts, "num_cores"), _fact(facts, "gpus"))
        for facts in hosts.values()
    )


def _fact(facts: object, name: str) -> str:
    value = facts.get(name, "") if isinstance(facts, dict) else ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _name(kind: Hardware) -> str:
    words = [
        ", ".join(filter(None, (model, _cores(num_cores), gpus))) for model, num_cores, gpus in kind
    ]
    return " + ".join(dict.fromkeys(words))


def _cores(number: str) -> str:
    return plural(int(number), "core") if number.isdecimal() else ""
