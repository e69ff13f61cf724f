"""`tianji plan`: every policy as a tree and as a drawing, and what it warns of."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.graph.policy import built_in_policies
from tests.helpers.paths import REPOSITORY
from tianji_cli.main import app

HOSTS = "version: 1\nhosts: {'box[1-3]': {address: 192.0.2.1, cores: 4}}\n"
EXPERIMENTS = {"impala": "cartpole_impala", "apex": "cartpole_dqn"}


def plan(directory: Path, *arguments: str, hosts: str = HOSTS) -> tuple[int, str, str]:
    inventory = directory / "hosts.yaml"
    inventory.write_text(hosts)
    words = ["--no-color", "plan", str(inventory), *arguments]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"}, catch_exceptions=True)
    return result.exit_code, result.stdout, result.stderr + str(result.exception or "")


@pytest.mark.parametrize("policy", built_in_policies())
def test_every_policy_is_drawn_with_its_processes_and_channels(policy: str, tmp_path: Path):
    is_on_one_host = policy in ("local", "multi-learner", "gpu-only")
    hosts = "version: 1\nhosts: {localhost: {}}\n" if is_on_one_host else HOSTS
    groups = ("-s", "groups=2") if policy in ("tianji", "environments") else ()
    experiment = EXPERIMENTS.get(policy, "cartpole_ppo")
    drawing = tmp_path / "plan.svg"
    arguments = ("-x", experiment, "--policy", policy, "-s", "actors=2", *groups)
    code, tree, errors = plan(tmp_path, *arguments, "--svg", str(drawing), hosts=hosts)
    assert code == 0, errors
    root = ElementTree.parse(drawing).getroot()
    space = "{http://www.w3.org/2000/svg}"
    texts = {element.text for element in root.iter(f"{space}text")}
    boxes = [e for e in root.iter(f"{space}rect") if e.get("class") == "box"]
    channels = [line.split("── ")[1] for line in tree.splitlines() if " -> " in line]
    named = [
        line.split("process ")[1].split(":")[0] for line in tree.splitlines() if "process " in line
    ]
    processes = [name.strip() for name in named if not name.startswith(("coordinator", "border"))]
    if policy == "local":
        assert "nothing crosses a process boundary" in texts
        assert len(boxes) == 1
        return
    assert set(processes) <= texts
    assert len(boxes) == len(processes)
    for channel in channels:
        assert channel.replace("->", "→") in texts
    width, height = (float(root.get(side, "0")) for side in ("width", "height"))
    for box in boxes:
        right = float(box.get("x", "")) + float(box.get("width", ""))
        bottom = float(box.get("y", "")) + float(box.get("height", ""))
        assert right <= width
        assert bottom <= height


def test_many_replicas_are_cut_short_and_counted(tmp_path: Path):
    drawing = tmp_path / "plan.svg"
    code, _, errors = plan(tmp_path, "-s", "actors=200", "--svg", str(drawing))
    assert code == 0, errors
    text = drawing.read_text()
    assert "actor x 200" in text
    assert "more" in text
    assert "actor-199" not in text


def test_a_drawing_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path):
    code, _, errors = plan(tmp_path, "--svg", str(tmp_path / "no" / "plan.svg"))
    assert code != 0
    assert "plan.svg" in errors


def test_cores_and_threads_are_shown_and_too_many_processes_warned_of(tmp_path: Path):
    _, tree, errors = plan(tmp_path, "-s", "actors=12", "-s", "learner.threads=3")
    assert "1 thread each, learners 3; pinned if 4 of 4 cores are idle" in tree
    assert "not pinned: 4 cores for 6 processes" in tree
    assert "over-subscribed: box2 runs 6 processes that compute on 4 cores" in errors
    assert "box1 runs" not in errors


@pytest.mark.parametrize("policy", ["multi-learner", "gpu-only"])
def test_learners_that_update_together_on_several_hosts_are_shown_in_a_ring(
    policy: str, tmp_path: Path
):
    together = ("--policy", policy, "-s", "algorithm.batch_steps=800", "-s", "actors=2")
    code, tree, errors = plan(tmp_path, *together)
    assert code == 0, errors
    ends = [line for line in tree.splitlines() if "encrypted ring: " in line]
    assert len(ends) == 1
    assert "(box1) -> " in ends[0]
    code, alone, errors = plan(tmp_path, *together, "--limit", "box2")
    assert code == 0, errors
    assert "encrypted ring" not in alone
    assert alone.count("learner-") == 2


SPACES = """\
name: spaces
modules: [space_envs]
env: {{id: AnySpace-v0, kwargs: {{observation: {}, action: {}, mask: {}}}}}
algorithm: {{name: ppo}}
stop: {{env_steps: 1000}}
network: {{core: {{name: gru, size: 32}}}}
"""


def written(tmp_path: Path, observation: str, action: str, mask: str) -> str:
    path = tmp_path / "spaces.yaml"
    path.write_text(SPACES.format(observation, action, mask))
    return str(path)


def test_leaves_encoders_actions_mask_and_core_are_shown(tmp_path: Path):
    experiment = written(tmp_path, "dict", "nested (hybrid)", "info")
    code, tree, errors = plan(tmp_path, "-x", experiment)
    assert code == 0, errors
    lines = [line.strip("│├└─ \xa0") for line in tree.splitlines()]
    for line in (
        "camera: Box(0, 255, (10, 10, 3), uint8); encoder minatar_cnn",
        "gear: Discrete(3); encoder one_hot",
        "speed: Box(-inf, inf, (2,), float32); encoder mlp",
        "action.arm.0: Discrete(2): choices among 2",
        "action.arm.1: Box(-1.0, 1.0, (2,), float32): 2 reals",
        "action.mode: MultiDiscrete([2 3]): choices among 2, 3",
        "action mask: action_mask of the environment's info",
        "core: gru of 32",
    ):
        assert line in lines
    words = ["--json", "plan", "-x", written(tmp_path, "box", "discrete", "observation")]
    result = CliRunner().invoke(app, [*words, "-s", "network.core=null"])
    network = json.loads(result.stdout)["network"]
    assert network["observation"] == [
        {"name": "observation", "space": "Box(-1.0, 1.0, (3,), float32)", "encoder": "mlp"}
    ]
    assert network["action"][0]["choices"] == [3]
    assert (network["action_mask"], network["core"]) == ("observation", None)


def test_an_environment_that_cannot_be_made_here_leaves_them_out_and_says_so(tmp_path: Path):
    code, tree, errors = plan(tmp_path, "-s", "env.id=nowhere:Nowhere-v0")
    assert code == 0
    assert "observation" not in tree
    assert "spaces and encoders are not shown: env.id: the module 'nowhere'" in errors


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("env.id=Climbing-v0", "algorithm.name=ippo", "stop.return_of=nobody"), "'nobody'"),
        (("stop.return_of=agent_0",), "stop.return_of: the environment has one agent"),
        (("agents=shared",), "agents: the environment has one agent"),
        (("agents=shared", "policy=gpu-only"), "agents: the environment has one agent"),
        (("env.id=Climbing-v0", "algorithm.name=ippo", "agents={}"), "agents: it names no policy"),
    ],
)
def test_what_is_wrong_with_agents_on_every_machine_is_refused(
    settings: tuple[str, ...], words: str, tmp_path: Path
):
    chosen = [word for setting in settings for word in ("-s", setting)]
    code, _, errors = plan(tmp_path, *chosen)
    assert code != 0
    assert words in errors
    words = ["--json", "plan", "-s", "env.id=nowhere:Nowhere-v0"]
    assert json.loads(CliRunner().invoke(app, words).stdout)["network"] is None


FORMER = REPOSITORY / "tests" / "recorded" / "finished"
"""PPO on CartPole with a hidden layer of 8."""


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.usefixtures("trusting")
def test_the_weights_that_a_run_would_start_with_are_shown(tmp_path: Path):
    weights = ("-s", f"init_from={FORMER}", "-s", "network.hidden_sizes=[8]")
    code, _, errors = plan(tmp_path, *weights)
    assert code != 0
    assert "you did not start this run here" in errors
    code, tree, errors = plan(tmp_path, *weights, "--trust")
    assert code == 0, errors
    assert "initial weights of finished, version 8, return unknown" in tree
    assert "all 8 tensors, 107 parameters" in tree
    code, tree, errors = plan(tmp_path, *weights, "-s", "network.hidden_sizes=[9]")
    assert code != 0, "no layer has the same shape"
    assert "-s init_from: no weights of finished" in errors
    assert "weight is [9, 4] here, [8, 4] there" in errors


@pytest.mark.usefixtures("trusting")
def test_a_plan_in_json_lists_the_weights(tmp_path: Path):
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text("version: 1\nhosts: {localhost: {}}\n")
    words = ["--json", "plan", str(inventory), "--trust", "-s", f"init_from={FORMER}@8"]
    result = CliRunner().invoke(app, [*words, "-s", "network.hidden_sizes=[8, 8]"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["init_from"]
    assert (found["run_id"], found["version"], found["return_mean"]) == ("finished", 8, None)
    assert "policy_head.weight" in found["weights"]["taken"]
    assert "is not in that run" in found["weights"]["kept"].values()


def test_what_is_chosen_for_the_hosts_is_shown(tmp_path: Path):
    settings = ("-s", "actors=auto", "-s", "staleness.max_lag=64")
    code, tree, errors = plan(tmp_path, *settings)
    assert code == 0, errors
    assert "actors=auto: 8 (2 on box1, 3 on box2, 3 on box3), of 12 cores on 3 hosts" in tree
    assert "actor x 8" in tree
    words = ["--json", "plan", str(tmp_path / "hosts.yaml"), *settings]
    found = json.loads(CliRunner().invoke(app, words).stdout)["automatic"]
    assert (found["actors"], found["num_envs"], found["bound"]) == (8, None, "cores")
    assert found["cores"] == {"box1": 4, "box2": 4, "box3": 4}


def test_with_a_fixed_lag_what_is_left_to_choose_is_said_to_be_the_default(tmp_path: Path):
    settings = ("-s", "staleness.mode=fixed", "-s", "actors=auto", "-s", "env.num_envs=auto")
    code, _, errors = plan(tmp_path, *settings)
    assert code == 0, errors
    assert "actors=auto is 2, the default: with a fixed lag, no host changes it" in errors
    assert "env.num_envs=auto is" in errors


def test_each_policy_of_a_team_is_told_apart(tmp_path: Path):
    experiment = tmp_path / "team.yaml"
    experiment.write_text(
        "version: 1\nname: team\nenv: {id: TwoStep-v0}\nalgorithm: {name: ippo}\n"
        "agents: {leader: [agent_0], other: [agent_1]}\nstop: {env_steps: 100}\n"
    )
    code, tree, errors = plan(tmp_path, "-x", str(experiment))
    assert code == 0, errors
    assert "the agents' policy leader of agent_0" in tree
    assert "the agents' policy other of agent_1" in tree
    assert tree.count("action: Discrete(2): choices among 2") == 2
