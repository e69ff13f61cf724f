"""Lines of Python that make the environment of a run with several agents, and play in it."""

from __future__ import annotations

from gymnasium import registry, spaces

from engine.envs.teams.foraging import foraging_of
from engine.envs.teams.modules import pettingzoo_module
from engine.envs.teams.registry import TEAMS
from engine.export.model_source import quoted
from engine.export.ports import Port, Ports
from engine.export.recipe import Recipe, action_expression, arguments_of, indexed, recipe_of
from engine.spaces.action_parts import parts_of
from engine.spaces.observations import MASK, has_mask_key
from engine.spaces.team import TEAM, Team
from engine.spec import EnvSpec, Experiment, module_of
from engine.trained.load import Trained

CONVERSION = "turn_based_aec_to_parallel"
ABSENT = "Agents have names; who is not there is given zeros, and what is chosen for it is ignored."


def team_recipe_of(experiment: Experiment) -> Recipe:
    """How the environment of several agents is made: with PettingZoo's parallel API, or as one of
    Gymnasium whose spaces are Tuples."""
    spec = experiment.env
    if _is_tuple(spec):
        return recipe_of(experiment)
    imports, notes, function = [], [ABSENT], "parallel_env"
    if spec.pettingzoo_module is not None:
        found = pettingzoo_module(spec.pettingzoo_module, spec.id)
        module = found.__name__
        function = function if hasattr(found, function) else "env"
    elif spec.id in TEAMS or spec.registered_id in TEAMS:
        notes.append(f"`{spec.id}` comes with TianJi (`engine/envs/teams/`); `env` stands for it.")
        return Recipe((), (f"env = ...  # {spec.id}",), tuple(notes), is_vector=False, is_team=True)
    else:
        module, function = module_of(spec.id) or "", spec.registered_id
        notes.append(f"`{module}` is a module of whoever trained the policy; it is not included.")
    imports.append(f"import {module}")
    made = f"{module}.{function}({arguments_of(spec.kwargs)})"
    if spec.pettingzoo_module is not None and function == "env":
        imports.append(f"from pettingzoo.utils.conversions import {CONVERSION}")
        made = f"{CONVERSION}({made})"
        notes.append("Its agents act in turn: whose turn it is not has its first choice only.")
    return Recipe(tuple(imports), (f"env = {made}",), tuple(notes), is_vector=False, is_team=True)


def team_observed(trained: Trained, ports: Ports) -> dict[str, str]:
    """An array [1, *shape] for each input that the environment gives, by the input's name."""
    is_tuple = _is_tuple(trained.experiment.env)
    team = trained.spaces.team
    assert team is not None
    numbers = {name: number for number, name in enumerate(team.agents)}
    expressions = {}
    for port in ports.observed:
        if port.kind == "action_mask":
            given = _mask_expression(trained, is_tuple=is_tuple)
        elif port.path[0] == TEAM:
            given = _present_expression(team, port, is_tuple=is_tuple)
        elif is_tuple:
            where = "".join(indexed(key) for key in (numbers[port.path[1]], *port.path[2:]))
            given = f"np.asarray(observation{where}, {quoted(port.dtype)})[None]"
        else:
            given = _leaf_expression(port)
        expressions[port.name] = given
    return expressions


def team_action(trained: Trained, ports: Ports) -> str:
    """The actions for `env.step`, from the dict `outputs`."""
    space = trained.action_space
    assert isinstance(space, spaces.Dict)
    if _is_tuple(trained.experiment.env):
        return action_expression(spaces.Tuple(list(space.values())), ports, is_vector=False)
    return action_expression(space, ports, is_vector=False)


def _leaf_expression(port: Port) -> str:
    """A leaf of what an agent observes; what stands for it if the agent is not there."""
    _, agent, *inner = port.path
    where = "".join(indexed(key) for key in (agent, *inner))
    absent = getattr(port.space, "start", 0)
    given = f"observation{where} if {quoted(agent)} in observation else {absent}"
    return f"np.full({(1, *port.shape)!r}, {given}, {quoted(port.dtype)})"


def _present_expression(team: Team, port: Port, *, is_tuple: bool) -> str:
    """Who is there."""
    if is_tuple:
        return f"np.ones({(1, *port.shape)!r}, {quoted(port.dtype)})"
    names = f"[{', '.join(map(quoted, team.agents))}]"
    return f"np.array([[name in env.agents for name in {names}]], {quoted(port.dtype)})"


def _mask_expression(trained: Trained, *, is_tuple: bool) -> str:
    """The valid choices of all agents; all of them for whoever is not there."""
    if is_tuple:
        return f'np.reshape(info["{MASK}"], (1, -1)) != 0'
    source = "observation" if has_mask_key(trained.observation_space) else "info"
    assert isinstance(trained.action_space, spaces.Dict)
    masks = []
    for agent, action in trained.action_space.items():
        name = quoted(agent)
        own = f'np.ravel({source}[{name}]["{MASK}"])'
        masks.append(f"{own} if {name} in {source} else np.ones({parts_of(action).num_logits})")
    return f"np.concatenate([{', '.join(masks)}])[None] != 0"


def _is_tuple(spec: EnvSpec) -> bool:
    """Whether it is an environment of Gymnasium whose spaces have an entry for each agent."""
    if spec.pettingzoo_module is not None or spec.id in TEAMS or spec.registered_id in TEAMS:
        return False
    return spec.registered_id in registry or foraging_of(spec.registered_id) is not None
