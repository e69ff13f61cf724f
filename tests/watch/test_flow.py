"""The graph of a run: who is where, who exchanges what, and how much."""

from __future__ import annotations

import pytest

from engine.graph.dataflow import build_graph, connections
from engine.graph.policy import built_in_policies, read_policy
from engine.spec import EnvSpec, Experiment
from tests.helpers.watching import manifest_of_run
from tianji_cli.watch.flow import MAX_HOSTS, Flow, FlowPlan
from tianji_cli.watch.roles import ProcessInfo, State, processes_of


def rate(carries: str, role: str) -> float | None:
    """Every role has a rate of its own: its number plus one."""
    return float(role.rpartition("-")[2]) + 1


def flow_of(manifest, states: dict[str, State] | None = None) -> Flow:
    plan = FlowPlan(processes_of(manifest), manifest.text("experiment", "policy"))
    return plan.flow(states or {}, rate, 100.0)


def words(flow: Flow) -> set[str]:
    """Edges as `actor@a -rollout-> buffer@b 3`."""

    def name(index: int) -> str:
        return f"{flow.nodes[index].kind}@{flow.nodes[index].host}"

    return {
        f"{name(edge.source)} -{edge.carries}-> {name(edge.target)} {edge.per_s:g}"
        for edge in flow.edges
    }


def test_a_run_on_three_hosts():
    hosts = {
        "a": ["coordinator", "buffer-0", "learner-0"],
        "b": ["actor-0", "actor-1"],
        "c": ["actor-2"],
    }
    flow = flow_of(manifest_of_run(hosts))
    assert flow.hosts == ["a", "b", "c"]
    assert flow.coordinator == "a"
    assert words(flow) == {
        "actor@b -rollout-> buffer@a 3",
        "actor@c -rollout-> buffer@a 3",
        "buffer@a -batch-> learner@a 1",
        "learner@a -weights-> actor@b 1",
        "learner@a -weights-> actor@c 1",
    }
    channels = {edge.carries: edge.channel for edge in flow.edges}
    assert channels == {"rollout": "gather", "batch": "on_request", "weights": "latest"}
    sizes = {edge.target: edge.bytes_per_s for edge in flow.edges if edge.carries == "weights"}
    assert sorted(sizes.values()) == [100.0, 200.0], "weights go to each actor"


def test_groups_exchange_models_and_keep_their_samples():
    hosts = {
        "a": ["coordinator", "reducer-0", "learner-0", "buffer-0", "actor-0", "actor-2"],
        "b": ["learner-1", "buffer-1", "actor-1", "actor-3"],
    }
    assert words(flow_of(manifest_of_run(hosts))) == {
        "actor@a -rollout-> buffer@a 4",
        "actor@b -rollout-> buffer@b 6",
        "buffer@a -batch-> learner@a 1",
        "buffer@b -batch-> learner@b 2",
        "learner@a -weights-> actor@a 1",
        "learner@b -weights-> actor@b 2",
        "learner@a -model-> reducer@a 1",
        "learner@b -model-> reducer@a 2",
    }


def test_remote_environments_and_an_evaluator():
    hosts = {
        "a": ["coordinator", "learner-0", "buffer-0", "actor-0", "evaluator-0"],
        "b": ["environment-0"],
    }
    assert words(flow_of(manifest_of_run(hosts, policy="environments"))) >= {
        "environment@b -observation-> actor@a 1",
        "learner@a -weights-> evaluator@a 1",
    }


def test_states_are_counted_by_node():
    hosts = {"a": ["learner-0", "buffer-0", "actor-0", "actor-1", "actor-2", "actor-3"]}
    states: dict[str, State] = {
        "actor-0": "running",
        "actor-1": "gone",
        "actor-2": "stuck",
        "actor-3": "starting",
        "learner-0": "stopped",
    }
    flow = flow_of(manifest_of_run(hosts), states)
    counts = {node.kind: (node.roles, node.running, node.gone) for node in flow.nodes}
    assert counts == {"actor": (4, 2, 1), "buffer": (1, 0, 0), "learner": (1, 0, 0)}


def test_what_is_lost_takes_and_sends_nothing():
    hosts = {"a": ["learner-0", "buffer-0"], "b": ["actor-0", "actor-1"], "c": ["actor-2"]}
    flow = flow_of(manifest_of_run(hosts), {"actor-1": "gone", "actor-2": "gone"})
    rates = {
        (edge.carries, flow.nodes[edge.source].host, flow.nodes[edge.target].host): edge.per_s
        for edge in flow.edges
    }
    assert rates["rollout", "b", "a"] == 1.0
    assert rates["weights", "a", "b"] == 1.0
    assert rates["rollout", "c", "a"] is None
    assert rates["weights", "a", "c"] is None


def test_many_hosts_share_a_place():
    hosts = {"head": ["learner-0", "buffer-0"]}
    hosts |= {f"box{i}": [f"actor-{i}"] for i in range(100)}
    flow = flow_of(manifest_of_run(hosts))
    assert len(flow.hosts) == MAX_HOSTS
    assert flow.hosts[-1] == f"{101 - MAX_HOSTS + 1} more hosts"
    assert sum(node.roles for node in flow.nodes) == 102


@pytest.mark.parametrize("policy", built_in_policies())
def test_every_policy_exchanges_what_its_processes_connect_for(policy: str):
    """Nodes on different hosts are joined if, and only if, the run connects them."""
    made = read_policy(policy)
    has_groups = any(item.replicas == "groups" for item in made.fragments.values())
    experiment = Experiment(
        name="x",
        env=EnvSpec(id="CartPole-v1"),
        algorithm={"name": "ppo"},
        actors=4,
        groups=2 if has_groups else 1,
    )
    graph = build_graph(made, experiment)
    infos = tuple(
        ProcessInfo(process.name, f"host of {process.name}", process.roles)
        for process in graph.processes
    )
    flow = FlowPlan(infos, policy).flow({}, rate, None) if len(infos) <= MAX_HOSTS else None
    assert flow is not None
    joined = {
        frozenset((flow.nodes[edge.source].host, flow.nodes[edge.target].host))
        for edge in flow.edges
    }
    wired = {
        frozenset((f"host of {client}", f"host of {server}"))
        for client, server, _ in connections(graph)
    }
    assert {pair for pair in joined if len(pair) > 1} == wired


def test_a_manifest_without_processes_has_no_graph():
    flow = FlowPlan((), "tianji").flow({}, rate, None)
    assert (flow.nodes, flow.edges, flow.hosts) == ([], [], [])


def test_a_policy_that_is_a_file_is_not_read(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text("name: {")
    hosts = {"a": ["learner-0", "buffer-0", "actor-0"]}
    flow = flow_of(manifest_of_run(hosts, policy=str(file)))
    assert {edge.channel for edge in flow.edges} == {""}
