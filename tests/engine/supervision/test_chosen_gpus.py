"""A supervisor makes the GPUs of the inventory visible to its roles, or refuses the run."""

from __future__ import annotations

import pytest

from engine.control_protocol import HostFacts, Prepare, Prepared, Refused
from engine.devices.visible import VISIBLE
from engine.graph.cut import single_cut
from engine.supervision import host_run
from engine.testing import make_experiment

FACTS = HostFacts(
    hostname="h", os="o", cpu_model="c", num_cores=1, memory_bytes=1, gpus=[], versions={}
)


class Children:
    """Takes what a forkserver would be started with."""

    def __init__(self, environment: dict[str, str], listeners: tuple[int, ...]) -> None:
        self.environment = environment

    def prepare(self, prepare: Prepare) -> None:
        """Starts nothing."""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host_run, "WorkerProcesses", Children)
    monkeypatch.setattr(host_run, "compiles_in_advance", lambda _prepare: False)

    def begin(gpus: tuple[int, ...] | None, visible: str | None, **env: str) -> host_run.HostRun:
        monkeypatch.delenv(VISIBLE, raising=False)
        if visible is not None:
            monkeypatch.setenv(VISIBLE, visible)
        experiment = make_experiment()
        prepare = Prepare(
            experiment=experiment,
            cut=single_cut(experiment),
            run_id="r",
            run_dir="/nowhere",
            host="box",
            gpus=gpus,
            env=env,
        )
        return host_run.HostRun(prepare, None)  # type: ignore[arg-type]

    return begin


def test_roles_see_the_gpus_of_the_inventory_among_those_that_are_left(begun):
    assert begun((1,), "4,6").children.environment[VISIBLE] == "6"
    assert begun((1,), None).children.environment[VISIBLE] == "1"
    assert begun((), "4,6").children.environment[VISIBLE] == ""
    assert VISIBLE not in begun(None, "4,6").children.environment
    assert begun((0,), "4,6", **{VISIBLE: "7"}).children.environment[VISIBLE] == "7"


def test_a_gpu_that_is_not_left_is_refused_by_the_host(begun):
    answer = begun((2,), "4,6").reserve(Prepared(facts=FACTS))
    assert isinstance(answer, Refused)
    assert answer.exit_code == 3
    assert answer.where == "box: gpus"
    assert "GPU 2" in answer.what
