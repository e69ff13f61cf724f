"""Distribution policies: the built-in ones build, a wrong one is told what is wrong with it."""

from __future__ import annotations

import msgspec
import pytest

from engine.config_file import convert, parse_yaml
from engine.errors import ConfigError
from engine.graph.dataflow import DataflowGraph, build_graph, roles_of
from engine.graph.policy import EdgeSpec, FragmentSpec, Policy, built_in_policies, load_policy
from engine.spec import EvaluationSpec
from engine.testing import make_experiment

TIANJI = load_policy("tianji")
LATEST = "latest"


def with_fragments(**fragments: FragmentSpec) -> Policy:
    return msgspec.structs.replace(TIANJI, fragments={**TIANJI.fragments, **fragments})


def with_edges(*edges: EdgeSpec) -> Policy:
    return msgspec.structs.replace(TIANJI, edges=edges)


def edge(source: str, target: str, carries: str) -> EdgeSpec:
    return EdgeSpec(source=source, target=target, carries=carries, channel=LATEST)


def refused(policy: Policy) -> str:
    with pytest.raises(ConfigError) as error:
        build_graph(policy, make_experiment())
    assert error.value.where == f"policy {policy.name}"
    return error.value.what


def roles(graph: DataflowGraph) -> dict[str, tuple[str, ...]]:
    return {process.name: process.roles for process in graph.processes}


@pytest.mark.parametrize("name", built_in_policies())
@pytest.mark.parametrize("actors", [1, 3])
def test_every_built_in_policy_places_every_role_once(name: str, actors: int):
    policy = load_policy(name)
    assert policy.name == name
    graph = build_graph(policy, make_experiment(actors=actors))
    placed = [address for process in graph.processes for address in process.roles]
    wanted = [*(f"actor-{i}" for i in range(actors)), "buffer-0", "learner-0"]
    assert sorted(placed) == sorted(wanted)
    assert graph.count("actor") == actors
    assert graph.count("learner") == graph.count("buffer") == 1


def test_tianji_gives_every_role_a_process():
    graph = build_graph(TIANJI, make_experiment(actors=2))
    assert roles(graph) == {
        "actor-0": ("actor-0",),
        "actor-1": ("actor-1",),
        "buffer-0": ("buffer-0",),
        "learner-0": ("learner-0",),
    }
    assert not graph.is_inline
    assert [(e.source, e.target, e.carries) for e in graph.edges] == [
        ("actor", "buffer", "rollout"),
        ("buffer", "learner", "batch"),
        ("learner", "actor", "weights"),
    ]


def test_local_puts_all_roles_into_one_process():
    graph = build_graph(load_policy("local"), make_experiment(actors=3))
    assert roles(graph) == {"local-0": ("actor-0", "actor-1", "actor-2", "buffer-0", "learner-0")}
    assert graph.is_inline


def test_actors_are_dealt_out_over_the_replicas_of_their_fragment():
    fragment = FragmentSpec(functions=("act", "env_step"), replicas=2)
    graph = build_graph(with_fragments(actor=fragment), make_experiment(actors=5))
    assert roles(graph)["actor-0"] == ("actor-0", "actor-2", "actor-4")
    assert roles(graph)["actor-1"] == ("actor-1", "actor-3")


def test_a_fragment_plays_the_roles_whose_functions_it_holds():
    fragment = FragmentSpec(functions=("store", "update"), replicas=1)
    assert roles_of(fragment) == ["buffer", "learner"]
    assert roles_of(FragmentSpec(functions=("act",), replicas=1)) == []


def test_a_function_in_no_fragment_is_named():
    policy = msgspec.structs.replace(
        TIANJI, fragments={k: v for k, v in TIANJI.fragments.items() if k != "buffer"}
    )
    assert refused(policy) == "the function 'store' is in 0 fragments, not in one"


def test_a_function_in_two_fragments_is_named():
    policy = with_fragments(extra=FragmentSpec(functions=("update",), replicas=1))
    assert refused(policy) == "the function 'update' is in 2 fragments, not in one"


def test_a_role_cut_in_two_is_named():
    policy = with_fragments(
        actor=FragmentSpec(functions=("act",), replicas="actors"),
        env=FragmentSpec(functions=("env_step",), replicas=1),
    )
    assert refused(policy) == "fragment 'actor' separates act from the rest of its role"


def test_an_edge_to_or_from_nowhere_is_named():
    what = refused(with_edges(*TIANJI.edges, edge("buffer", "trainer", "batch")))
    assert what == "edge buffer -> trainer (batch): no fragment 'trainer'"
    assert "no fragment 'queue'" in refused(with_edges(edge("queue", "learner", "batch")))


def test_an_edge_that_carries_what_its_source_does_not_produce_is_named():
    what = refused(with_edges(*TIANJI.edges, edge("learner", "actor", "batch")))
    assert what == "edge learner -> actor (batch): learner produces no batch"


def test_an_edge_that_carries_what_its_target_does_not_take_is_named():
    what = refused(with_edges(*TIANJI.edges, edge("learner", "buffer", "weights")))
    assert what == "edge learner -> buffer (weights): buffer takes no weights"


@pytest.mark.parametrize("missing", range(3))
def test_an_input_that_no_edge_brings_is_named(missing: int):
    gone = TIANJI.edges[missing]
    kept = [item for item in TIANJI.edges if item is not gone]
    what = refused(with_edges(*kept))
    assert what == f"fragment {gone.target!r} needs {gone.carries}, but no edge brings it"


def test_fused_functions_need_no_edge():
    policy = Policy(
        name="fused",
        summary="buffer and learner share a process",
        fragments={
            "actor": TIANJI.fragments["actor"],
            "learner": FragmentSpec(functions=("store", "update"), replicas=1),
        },
        edges=(edge("actor", "learner", "rollout"), edge("learner", "actor", "weights")),
    )
    graph = build_graph(policy, make_experiment(actors=1))
    assert roles(graph)["learner-0"] == ("buffer-0", "learner-0")


def test_an_unknown_policy_suggests_the_nearest():
    with pytest.raises(ConfigError) as error:
        load_policy("tianjy")
    assert error.value.where == "policy"
    assert error.value.fix == "did you mean 'tianji'?"


def test_a_policy_file_with_an_unknown_value_is_refused():
    text = "{name: x, summary: y, fragments: {}, edges: [{source: a, target: b, carries: wieghts}]}"
    with pytest.raises(ConfigError, match="wieghts"):
        convert(parse_yaml(text, source="policy x"), Policy)


@pytest.mark.parametrize("name", built_in_policies())
def test_an_evaluation_adds_an_evaluator_beside_everything_else(name: str):
    experiment = make_experiment(policy=name)
    plain = build_graph(load_policy(name), experiment)
    graph = build_graph(
        load_policy(name), msgspec.structs.replace(experiment, evaluation=EvaluationSpec())
    )
    assert plain.count("evaluator") == 0
    assert graph.count("evaluator") == 1
    if plain.is_inline:
        assert graph.is_inline
    else:
        assert len(graph.processes) == len(plain.processes) + 1
        edge = graph.edges[-1]
        assert (edge.target, edge.carries, edge.channel) == ("evaluator", "weights", "latest")
