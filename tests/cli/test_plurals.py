"""Numbers of things are said as people say them: no "1 updates"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY

ROOT = REPOSITORY
SOURCES = sorted(path for part in ("engine", "tianji_cli") for path in (ROOT / part).rglob("*.py"))

NOUNS = (
    "(?:actor|block|bundle|cell|connection|core|environment|episode|error|event|field|figure|file"
    "|fragment|frame|group|host|key|learner|message|module|name|node|observation|package|part|port"
    "|process|replica|report|role|rollout|row|run|sample|seed|sender|slot|step|system|test|thread"
    "|update|value|version|worker)e?s"
)
COUNTED = re.compile(
    rf"^ (?:(?:env|optimiser|training|summary|ledger|other|more) )?{NOUNS}\b(?!/s)"
)
ALWAYS_SEVERAL = {
    # what is counted, where it cannot be one or is not a whole number
    ("engine/algorithms/base.py", "min_size"),  # more than a capacity
    ("engine/replay/sequences.py", "burn_in_steps"),  # more than a rollout
    ("engine/spaces/leaves.py", "count"),  # more than one
    ("engine/host/limits.py", "needs.roles"),  # of a host that has reached its limits
    ("tianji_cli/bench/comparison/compare.py", "highest"),  # measured
    ("tianji_cli/bench/comparison/compare.py", "who"),  # a name
    ("tianji_cli/bench/comparison/run_cell.py", "figures.claimed_env_steps"),  # of a whole run
    ("tianji_cli/commands/benchmarks/conduct.py", "result.load.busy_cores"),
    ("engine/replay/limiter.py", "tolerance"),  # not a whole number
    ("tianji_cli/commands/benchmarks/bench_scaling.py", "nodes"),  # a list
    ("tianji_cli/runs/resume.py", "info.buffer['min_size']"),  # as a checkpoint has it
    ("tianji_cli/planning/placement.py", "count"),  # more than there are cores
    ("tianji_cli/planning/placement.py", "host"),  # a verb
    ("tianji_cli/planning/placement.py", "kind"),  # more or fewer than wanted
    ("tianji_cli/planning/resources.py", "item.host"),  # a verb
    ("tianji_cli/planning/placement.py", "sum(named)"),  # more than a run may have
    ("tianji_cli/provisioning/provision.py", "num_hosts"),  # of which several failed
    ("tianji_cli/provisioning/reachability.py", "num_others"),
    ("tianji_cli/render/run/figures_profile.py", "len(learners)"),
    ("tianji_cli/render/bench/figures_scaling.py", "last.nodes"),  # compared with the first
    ("tianji_cli/render/live.py", "progress.env_steps_consumed"),  # in columns
    ("tianji_cli/render/run/page.py", "len(runs)"),  # a comparison
    ("tianji_cli/render/run/titles.py", "len(runs)"),  # a comparison
    ("tianji_cli/render/run/titles.py", "steps"),  # a text, of as many as a threshold takes
    ("tianji_cli/bench/scaling/compare.py", "_cores(row.used_cores)"),  # measured
}


def unguarded(path: Path) -> Iterator[tuple[str, str, int]]:
    """Places where a number that may be one stands before a plural."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.JoinedStr):
            continue
        for number, words in zip(node.values, node.values[1:], strict=False):
            if not isinstance(number, ast.FormattedValue) or not isinstance(words, ast.Constant):
                continue
            said = ast.unparse(number.value)
            is_fixed = said.removeprefix("len").strip("()").isupper() or said.startswith(
                "units.count("
            )
            if COUNTED.match(str(words.value)) and not is_fixed and number.conversion == -1:
                yield path.relative_to(ROOT).as_posix(), said, number.lineno


@pytest.mark.parametrize("part", ["engine", "tianji_cli"])
def test_a_number_before_a_plural_is_not_one(part: str) -> None:
    found = [
        f"{file}:{line}: {said}"
        for path in SOURCES
        for file, said, line in unguarded(path)
        if file.startswith(part) and (file, said) not in ALWAYS_SEVERAL
    ]
    assert found == [], "engine.wording.plural says them"


def test_exceptions_are_there() -> None:
    found = {(file, said) for path in SOURCES for file, said, _ in unguarded(path)}
    assert ALWAYS_SEVERAL - found == set()


def test_what_is_looked_for_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "some.py"
    file.write_text('a = f"{n} env steps left", f"{n} steps/s", f"{n!r} steps", f"{MOST} steps"\n')
    assert [said for _, said, _ in unguarded(file)] == ["n"]
