"""What is compiled before there are roles, and when it would do harm."""

from __future__ import annotations

import msgspec
import pytest

from engine.control_protocol import Prepare
from engine.graph.cut import single_cut
from engine.spec import LearnerSpec
from engine.supervision import host_run
from engine.supervision.host_run import compiles_in_advance
from engine.testing import make_experiment


def prepare(compile_when: str = "auto", cores_needed: int | None = None) -> Prepare:
    learner = msgspec.convert({"compile": compile_when}, LearnerSpec)
    experiment = msgspec.structs.replace(make_experiment(), learner=learner)
    cut = single_cut(experiment)
    return Prepare(
        experiment=experiment,
        cut=cut,
        run_id="run",
        run_dir="/none",
        host="here",
        cores_needed=cores_needed,
    )


@pytest.mark.parametrize(
    ("asked", "is_wanted"),
    [
        (prepare(), True),
        (prepare("off"), False),
        (prepare(cores_needed=5), True),
        (prepare(cores_needed=4), False),
    ],
    ids=["usual", "nothing is compiled", "too few cores to measure", "idle cores are measured"],
)
def test_what_is_compiled_in_advance_is_not_taken_for_another_programs_work(
    asked: Prepare, is_wanted: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(host_run, "allowed_cores", lambda: (0, 1, 2, 3))
    assert compiles_in_advance(asked) == is_wanted
