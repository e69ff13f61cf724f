"""Distribution policies: the built-in ones build, a wrong one is told what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.config.config_file import convert, parse_yaml
from engine.errors import ConfigError
from engine.graph.dataflow import DataflowGraph, build_graph, connections
from engine.graph.policy import (
    DistributionPolicy,
    EdgeSpec,
    FragmentSpec,
    built_in_policies,
    read_policy,
    roles_of,
)
from engine.spec import EvaluationSpec, StalenessSpec
from engine.testing import make_experiment

TIANJI = read_policy("tianji")
LATEST = "latest"


def with_fragments(**fragments: FragmentSpec) -> DistributionPolicy:
    return msgspec.structs.replace(TIANJI, fragments={**TIANJI.fragments, **fragments})


def with_edges(*edges: EdgeSpec) -> DistributionPolicy:
    return msgspec.structs.replace(TIANJI, edges=edges)


def edge(source: str, target: str, carries: str) -> EdgeSpec:
    return EdgeSpec(source=source, target=target, carries=carries, channel=LATEST)


def refused(policy: DistributionPolicy) -> str:
    with pytest.raises(ConfigError) as error:
        build_graph(policy, make_experiment())
    assert error.value.where == f"policy {policy.name}"
    return error.value.what


def roles(graph: DataflowGraph) -> dict[str, tuple[str, ...]]:
    return {process.name: process.roles for process in graph.processes}


@pytest.mark.parametrize("name", built_in_policies())
@pytest.mark.parametrize("actors", [1, 3])
def test_every_built_in_policy_places_every_role_once(name: str, actors: int):
    policy = read_policy(name)
    assert policy.name == name
    graph = build_graph(policy, make_experiment(actors=actors))
    placed = [address for process in graph.processes for address in process.roles]
    assert sorted(placed) == sorted(graph.cut.addresses)
    assert graph.count("actor") == actors
    assert graph.count("learner") == graph.count("buffer") == graph.cut.groups
    assert all(a != b for a, b, _ in connections(graph))


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
    graph = build_graph(read_policy("local"), make_experiment(actors=3))
    assert roles(graph) == {"local-0": ("actor-0", "actor-1", "actor-2", "buffer-0", "learner-0")}
    assert graph.is_inline


def test_actors_are_dealt_out_over_the_replicas_of_their_fragment():
    fragment = FragmentSpec(functions=("act", "env_step"), replicas=2)
    graph = build_graph(with_fragments(actor=fragment), make_experiment(actors=5))
    assert roles(graph)["actor-0"] == ("actor-0", "actor-2", "actor-4")
    assert roles(graph)["actor-1"] == ("actor-1", "actor-3")


def test_a_fragment_plays_the_roles_whose_functions_it_holds():
    fragment = FragmentSpec(functions=("store", "update"), replicas=1)
    assert roles_of(fragment.functions) == ["buffer", "learner"]
    assert roles_of(("act", "env_step")) == ["actor"], "it steps its own environments"
    assert roles_of(("env_step",)) == ["environment"]


def test_a_function_in_no_fragment_is_named():
    policy = msgspec.structs.replace(
        TIANJI, fragments={k: v for k, v in TIANJI.fragments.items() if k != "buffer"}
    )
    assert refused(policy) == "the function 'store' is in 0 fragments, not in one"


def test_a_function_in_two_fragments_is_named():
    policy = with_fragments(extra=FragmentSpec(functions=("update",), replicas=1))
    assert refused(policy) == "the function 'update' is in 2 fragments, not in one"


def test_an_actor_cut_from_its_environments_needs_the_edges_between_them():
    policy = with_fragments(
        actor=FragmentSpec(functions=("act",), replicas="actors"),
        env=FragmentSpec(functions=("env_step",), replicas=1),
    )
    assert refused(policy) == "fragment 'actor' needs observation, but no edge brings it"


def test_a_fragment_without_a_function_is_named():
    policy = with_fragments(idle=FragmentSpec(functions=(), replicas=1))
    assert refused(policy) == "fragment 'idle' holds no function"


def test_a_channel_that_cannot_carry_the_value_is_named():
    wrong = EdgeSpec(source="actor", target="buffer", carries="rollout", channel="latest")
    what = refused(with_edges(wrong, *TIANJI.edges[1:]))
    assert what == "edge actor -> buffer (rollout): channel must be gather, not latest"


def test_fragments_that_wait_for_each_other_are_named():
    *others, model, merged = TIANJI.edges
    waiting = [msgspec.structs.replace(item, channel="barrier") for item in (model, merged)]
    what = refused(with_edges(*others, *waiting))
    assert what == "synchronous cycle learner -> reducer -> learner: each waits for the one before"


def test_weights_and_observations_exist_before_anything_so_waiting_for_them_is_no_cycle():
    for name in ("synchronous", "single-learner-fine"):
        build_graph(read_policy(name), make_experiment())


def test_copies_of_a_learner_must_be_brought_together():
    lonely = with_fragments(
        buffer=FragmentSpec(functions=("store",), replicas=2),
        learner=FragmentSpec(functions=("update",), replicas=2),
    )
    edges = [item for item in lonely.edges if "reducer" not in (item.source, item.target)]
    del lonely.fragments["reducer"]
    lonely = msgspec.structs.replace(lonely, edges=tuple(edges))
    what = refused(lonely)
    assert what == "fragment 'learner' is replicated, but no edge synchronizes its replicas"


def test_every_learner_has_a_buffer_of_its_own():
    policy = with_fragments(buffer=FragmentSpec(functions=("store",), replicas=1))
    assert "every learner has a buffer of its own" in refused(policy)


def test_groups_have_learners_buffers_and_actors_and_one_reducer():
    graph = build_graph(TIANJI, make_experiment(actors=4, groups=2))
    assert roles(graph)["learner-1"] == ("learner-1",)
    assert "reducer-0" in roles(graph)
    groups = {process.name: process.group for process in graph.processes}
    assert groups["actor-3"] == groups["buffer-1"] == groups["learner-1"] == 1
    assert groups["reducer-0"] is None
    assert ("actor-3", "buffer-1", False) in connections(graph)
    assert ("actor-3", "learner-1", True) in connections(graph)
    assert ("learner-1", "reducer-0", False) in connections(graph)
    assert ("actor-3", "buffer-0", False) not in connections(graph)


def test_one_group_needs_no_reducer():
    assert build_graph(TIANJI, make_experiment()).cut.merge == "none"
    assert build_graph(TIANJI, make_experiment(groups=2)).cut.merge == "average"


FIXED = StalenessSpec(mode="fixed", lag=3)


@pytest.mark.parametrize(
    ("policy", "lag"), [("tianji", 3), ("local", 3), ("multi-learner", 3), ("synchronous", 0)]
)
def test_a_fixed_lag_stays_fixed_within_what_a_policy_allows(policy: str, lag: int):
    staleness = build_graph(read_policy(policy), make_experiment(staleness=FIXED)).cut.staleness
    assert (staleness.mode, staleness.lag, staleness.bound) == ("fixed", lag, lag)


@pytest.mark.parametrize(
    ("policy", "groups", "why"),
    [
        ("impala", 1, "the policy impala does not bound the age of samples"),
        ("central", 1, "the policy central merges models whenever one arrives"),
        ("tianji", 2, "the policy tianji merges models whenever one arrives"),
    ],
)
def test_a_fixed_lag_is_refused_where_it_could_not_be_kept(policy: str, groups: int, why: str):
    experiment = make_experiment(staleness=FIXED, groups=groups)
    with pytest.raises(ConfigError, match=why) as error:
        build_graph(read_policy(policy), experiment)
    assert error.value.where == "staleness.mode"


def test_groups_need_a_policy_that_has_them_and_an_actor_each():
    with pytest.raises(ConfigError, match="no compute groups"):
        build_graph(read_policy("local"), make_experiment(groups=2))
    with pytest.raises(ConfigError, match="3 groups cannot share 2 actors"):
        build_graph(TIANJI, make_experiment(groups=3, actors=2))


def test_a_process_that_would_act_for_two_groups_is_named():
    policy = with_fragments(actor=FragmentSpec(functions=("act", "env_step"), replicas=3))
    with pytest.raises(ConfigError, match="process actor-0 would act for 2 groups"):
        build_graph(policy, make_experiment(groups=2, actors=6))


def test_a_barrier_means_no_lag_whatever_the_experiment_says():
    experiment = make_experiment(staleness=StalenessSpec(mode="drop", max_lag=4))
    staleness = build_graph(read_policy("synchronous"), experiment).cut.staleness
    assert (staleness.mode, staleness.max_lag) == ("block", 0)
    kept = build_graph(read_policy("single-learner-coarse"), experiment).cut.staleness
    assert kept == experiment.staleness


@pytest.mark.parametrize(
    ("policy", "bound"),
    [
        ("tianji", "auto"),
        ("single-learner-coarse", "auto"),
        ("single-learner-fine", "auto"),
        ("environments", "auto"),
        ("local", 1),
        ("multi-learner", 1),
        ("central", 1),
        ("synchronous", 0),
        ("gpu-only", 0),
    ],
)
def test_an_adaptive_bound_moves_where_actors_or_environments_go_on_beside_the_learner(
    policy: str, bound: int | str
):
    experiment = make_experiment(staleness=StalenessSpec(max_lag="auto"))
    assert build_graph(read_policy(policy), experiment).cut.staleness.max_lag == bound


def test_an_adaptive_bound_stays_where_policies_of_a_team_are_trained_apart():
    experiment = make_experiment(staleness=StalenessSpec(max_lag="auto"))
    graph = build_graph(read_policy("environments"), experiment, num_apart=2)
    assert graph.cut.staleness.max_lag == 1


def test_a_fixed_lag_is_not_that_of_an_adaptive_bound():
    wanted = StalenessSpec(mode="fixed", max_lag="auto", lag=3)
    staleness = build_graph(read_policy("local"), make_experiment(staleness=wanted)).cut.staleness
    assert (staleness.is_adaptive, staleness.bound) == (False, 3)


def test_two_processes_share_one_connection_and_weights_have_their_own():
    graph = build_graph(read_policy("single-learner-coarse"), make_experiment(actors=1))
    assert sorted(connections(graph)) == [
        ("actor-0", "learner-0", False),
        ("actor-0", "learner-0", True),
    ]
    fine = build_graph(read_policy("single-learner-fine"), make_experiment(actors=1))
    assert connections(fine) == [("learner-0", "environment-0", False)]


def test_a_policy_can_be_a_file(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{name: mine, summary: two processes, fragments: {"
        " work: {functions: [act, env_step, store], replicas: 1},"
        " learn: {functions: [update], replicas: 1}}, edges: ["
        " {source: work, target: learn, carries: batch, channel: on_request},"
        " {source: learn, target: work, carries: weights, channel: latest}]}"
    )
    graph = build_graph(read_policy(str(path)), make_experiment(actors=2))
    assert roles(graph) == {
        "work-0": ("actor-0", "actor-1", "buffer-0"),
        "learn-0": ("learner-0",),
    }


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
    policy = DistributionPolicy(
        name="fused",
        summary="buffer and learner share a process",
        fragments={
            "actor": TIANJI.fragments["actor"],
            "learner": FragmentSpec(functions=("store", "update"), replicas=1),
        },
        edges=(
            EdgeSpec(source="actor", target="learner", carries="rollout", channel="gather"),
            edge("learner", "actor", "weights"),
        ),
    )
    graph = build_graph(policy, make_experiment(actors=1))
    assert roles(graph)["learner-0"] == ("buffer-0", "learner-0")


def test_an_unknown_policy_suggests_the_nearest():
    with pytest.raises(ConfigError) as error:
        read_policy("tianjy")
    assert error.value.where == "policy"
    assert error.value.fix == "did you mean 'tianji'?"


def test_a_policy_file_with_an_unknown_value_is_refused():
    text = "{name: x, summary: y, fragments: {}, edges: [{source: a, target: b, carries: wieghts}]}"
    with pytest.raises(ConfigError, match="wieghts"):
        convert(parse_yaml(text, source="policy x"), DistributionPolicy)


@pytest.mark.parametrize("name", built_in_policies())
def test_an_evaluation_adds_an_evaluator_beside_everything_else(name: str):
    experiment = make_experiment(policy=name)
    plain = build_graph(read_policy(name), experiment)
    graph = build_graph(
        read_policy(name), msgspec.structs.replace(experiment, evaluation=EvaluationSpec())
    )
    assert plain.count("evaluator") == 0
    assert graph.count("evaluator") == 1
    if plain.is_inline:
        assert graph.is_inline
    else:
        assert len(graph.processes) == len(plain.processes) + 1
        edge = graph.edges[-1]
        assert (edge.target, edge.carries, edge.channel) == ("evaluator", "weights", "latest")


def test_each_policy_of_a_team_has_an_actor_and_a_learner_in_a_process():
    policy = read_policy("environments")
    graph = build_graph(policy, make_experiment(actors=2), num_apart=3)
    assert roles(graph) == {
        "environment-0": ("environment-0", "environment-1"),
        **{
            f"agent-{n}": (f"actor-{n}", f"actor-{n + 3}", f"buffer-{n}", f"learner-{n}")
            for n in range(3)
        },
        "reducer-0": ("reducer-0",),
    }
    assert (graph.cut.groups, graph.cut.actors, graph.cut.merge) == (3, 6, "assemble")
    met = {frozenset(ends[:2]) for ends in connections(graph)}
    assert met == {
        frozenset((f"agent-{n}", other))
        for n in range(3)
        for other in ("environment-0", "reducer-0")
    }


@pytest.mark.parametrize("name", ["tianji", "single-learner-fine", "multi-learner"])
def test_only_around_shared_environments_can_a_team_be_split(name: str):
    policy = msgspec.structs.replace(read_policy(name), splits_teams=True)
    with pytest.raises(ConfigError) as caught:
        build_graph(policy, make_experiment(actors=1), num_apart=3)
    assert caught.value.where.startswith("policy")


def test_groups_of_a_team_apart_are_its_policies():
    policy, experiment = read_policy("environments"), make_experiment(actors=2, groups=2)
    with pytest.raises(ConfigError, match="3 policies, each with a learner") as info:
        build_graph(policy, experiment, num_apart=3)
    assert info.value.where == "groups"
    assert "groups=3" in info.value.fix
    with pytest.raises(ConfigError, match="at most 10000"):
        build_graph(policy, make_experiment(actors=9000), num_apart=3)
