"""GPUs are dealt out as the experiment wishes, and a wish that cannot be met is refused by name."""

from __future__ import annotations

import msgspec
import pytest

from engine.config.config_file import load_experiment
from engine.errors import ConfigError, PreflightError
from tianji_cli.config.inventory import Host, Inventory
from tianji_cli.config.lookup import find_file
from tianji_cli.planning.devices import deal_devices, planned_device
from tianji_cli.planning.plan import Plan, make_plan
from tianji_cli.planning.resources import (
    HostResources,
    cores_wanted,
    resources_of,
    words_of_devices,
)

TWO = ("cuda:0", "cuda:1")


def host(name: str = "a", **more: object) -> Host:
    given = {"connection": "ssh", "ssh_host": name, "address": "192.0.2.1", "ports": (29500, 29600)}
    return msgspec.convert({"name": name, **given, **more}, Host)


def plan(*settings: str, on: tuple[Host, ...] = ()) -> Plan:
    experiment, _ = load_experiment(find_file("experiments", "cartpole_ppo"), settings)
    return make_plan(experiment, Inventory(source="hosts.yaml", hosts=on or (host(),)))


def dealt(made: Plan, *found: str, name: str = "a") -> dict[str, str]:
    return deal_devices(made, next(item for item in made.hosts if item.name == name), found)


def test_without_a_wish_only_fused_loops_use_the_gpus_there_are():
    assert dealt(plan(), *TWO) == {}
    assert dealt(plan("policy=single-learner-fine"), *TWO) == {}
    loops = plan("policy=gpu-only", "actors=3", "algorithm.batch_steps=1200")
    found = dealt(loops, *TWO)
    assert [found[f"learner-{i}"] for i in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    for kind in ("actor", "buffer"):
        assert [found[f"{kind}-{i}"] for i in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert dealt(loops) == {}


def test_gpus_that_an_inventory_names_are_used_by_learners():
    given = (host(gpus=[4, 5]),)
    assert dealt(plan(on=given), *TWO) == {"learner-0": "cuda:0"}
    groups = plan("groups=3", "actors=3", on=given)
    found = dealt(groups, *TWO)
    assert found == {"learner-0": "cuda:0", "learner-1": "cuda:1", "learner-2": "cuda:0"}
    assert dealt(plan("learner.device=cpu", on=given)) == {}


def test_learners_of_several_hosts_each_begin_with_the_first_gpu_of_theirs():
    hosts = tuple(host(name, address=f"192.0.2.{i}", gpus=[0, 1]) for i, name in enumerate("ab", 1))
    made = plan("groups=4", "actors=4", on=hosts)
    for name in "ab":
        assert sorted(dealt(made, *TWO, name=name).values()) == ["cuda:0", "cuda:1"]


def test_central_inference_is_where_its_learner_is():
    made = plan("policy=single-learner-fine", "learner.device=cuda:1", "actors=2")
    assert dealt(made, *TWO) == {"learner-0": "cuda:1", "actor-0": "cuda:1", "actor-1": "cuda:1"}
    apart = plan("policy=single-learner-fine", "learner.device=cuda", "actor.device=cpu")
    assert dealt(apart, *TWO) == {"learner-0": "cuda:0"}


def test_actors_and_evaluators_take_the_gpus_that_no_learner_has():
    wishes = ("learner.device=cuda", "actor.device=cuda", "actors=3")
    made = plan(*wishes, "evaluation.episodes=2", "evaluation.device=cuda:2")
    assert dealt(made, "cuda:0", "cuda:1", "cuda:2") == {
        "learner-0": "cuda:0",
        "actor-0": "cuda:1",
        "actor-1": "cuda:2",
        "actor-2": "cuda:1",
        "evaluator-0": "cuda:2",
    }
    assert set(dealt(plan(*wishes), "cuda:0").values()) == {"cuda:0"}


@pytest.mark.parametrize(
    ("settings", "given", "found", "words"),
    [
        (
            ("learner.device=cuda",),
            {},
            (),
            "learner-0 is to compute on cuda, but PyTorch finds none",
        ),
        (("learner.device=cuda:2",), {}, TWO, "on cuda:2, but PyTorch finds 2 GPUs"),
        (("actor.device=cuda",), {"gpus": []}, (), "the inventory gives it no GPU there"),
        ((), {"gpus": [0, 1]}, ("cuda:0",), "the GPUs 0, 1, but PyTorch finds 1 there"),
        (("policy=gpu-only", "actors=1"), {"gpus": [0]}, (), "GPUs 0, but PyTorch finds none"),
    ],
)
def test_a_gpu_that_was_asked_for_is_not_replaced_in_silence(settings, given, found, words):
    made = plan(*settings, on=(host(**given),))
    with pytest.raises(PreflightError, match=words) as caught:
        dealt(made, *found)
    assert caught.value.where == "host a"


def test_a_name_that_is_no_device_is_refused():
    with pytest.raises(ConfigError, match=r"learner\.device|auto"):
        plan("learner.device=gpu")


def test_processes_say_where_they_compute():
    made = plan("policy=single-learner-fine", "learner.device=cuda", "actors=1")
    seats = resources_of(made, {"a": HostResources(devices=TWO, cores=(0,))})
    assert seats["learner-0"].device == "cuda:0"
    assert seats["learner-0"].devices == {"learner-0": "cuda:0", "actor-0": "cuda:0"}
    assert seats["coordinator"].device == seats["environment-0"].device == "cpu"
    assert words_of_devices(seats, made) == ["learner-0 on a runs on cuda:0"]


@pytest.mark.parametrize(
    ("settings", "given", "words"),
    [
        ((), {}, ""),
        (("learner.device=cuda:1",), {}, "cuda:1"),
        (("learner.device=cuda",), {}, "a GPU"),
        ((), {"gpus": [3]}, "GPU 3"),
        (("policy=gpu-only", "actors=1"), {}, "a GPU if PyTorch finds one there, else the CPU"),
        (("policy=gpu-only", "actors=1"), {"gpus": []}, "CPU, as `gpus: []` asks"),
    ],
)
def test_a_plan_says_what_is_known_before_the_host_is_asked(settings, given, words):
    made = plan(*settings, on=(host(**given),))
    of_learner = next(p for p in made.placements if "learner-0" in p.roles)
    assert planned_device(of_learner, made, made.hosts[0]) == words


def test_a_learner_on_a_device_has_a_core_for_its_loop_and_one_for_its_updates():
    on_host, on_device = (
        plan("learner.threads=2", *more) for more in ((), ("learner.device=cuda",))
    )
    assert cores_wanted(on_host)["learner-0"] == 2
    assert cores_wanted(on_device)["learner-0"] == 3
    assert cores_wanted(on_device)["actor-0"] == 1
    assert cores_wanted(plan("policy=gpu-only", "actors=1"))["loop-0"] == 1
