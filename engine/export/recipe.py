"""Lines of Python that make a run's environment without TianJi, and give it to a policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from gymnasium import registry, spaces

from engine.envs.make import ATARI_OPTIONS
from engine.envs.names import family_of
from engine.envs.pool.catalogue import gymnasium_twin
from engine.envs.wrappers import Wrapping, wrappings_of
from engine.export.model_source import quoted
from engine.export.ports import Ports
from engine.layers.encoders import encoded_leaves
from engine.spaces.leaves import AnySpace
from engine.spaces.observations import MASK, has_mask_key, without_mask
from engine.spec import Experiment, NetworkSpec
from engine.trained.load import Trained

PACKAGES = {"ALE": "ale_py", "BabyAI": "minigrid", "MiniGrid": "minigrid"}
"""Packages that have to be registered before their environments are known."""


@dataclass(frozen=True)
class Recipe:
    """How an environment is made and used.

    Attributes:
        imports: Lines.
        makes: Lines that make `env`.
        notes: What no line can say.
        is_vector: Whether it is a vector of one environment, whose arrays have the axis of a batch.
        is_team: Whether it has PettingZoo's parallel API.
    """

    imports: tuple[str, ...]
    makes: tuple[str, ...]
    notes: tuple[str, ...]
    is_vector: bool
    is_team: bool = False


def recipe_of(experiment: Experiment) -> Recipe:
    """How the environment of a run is made, as `engine.envs.make` does."""
    spec = gymnasium_twin(experiment.env)
    family, wrappings = family_of(spec.registered_id), wrappings_of(spec)
    imports = {"gymnasium": "import gymnasium"}
    makes, notes = [], []
    if package := PACKAGES.get(family):
        imports[package] = f"import {package}"
        makes.append(f"gymnasium.register_envs({package})")
    for module in () if _is_gymnasiums_own(spec.registered_id) else experiment.modules:
        imports[module] = f"import {module}"
        notes.append(f"`{module}` is a module of whoever trained the policy; it is not included.")
    if family == "MinAtar":
        notes.append(
            "Gymnasium learns of this id from TianJi's `engine/envs/minatar.py`, a small file that"
            " stands alone; copy it, and call its `register_minatar()`."
        )
    is_vector = not wrappings and _is_vector_only(spec.registered_id, family)
    options: dict[str, object] = dict(spec.kwargs)
    if is_vector:
        options = {"num_envs": 1, **(ATARI_OPTIONS if family == "ALE" else {}), **options}
    makes.append(
        f"env = gymnasium.{'make_vec' if is_vector else 'make'}({_given(spec.id, options)})"
    )
    for wrapping in wrappings:
        line, module = _wraps(wrapping)
        makes.append(line)
        if module:
            imports[module] = f"import {module}"
    return Recipe(tuple(imports.values()), tuple(makes), tuple(notes), is_vector)


def network_words(trained: Trained) -> str:
    """The layers of a network: those of each leaf of an observation, and a memory; of a team, those
    of each policy."""
    spec, team = trained.experiment.network, trained.spaces.team
    if team is None:
        words = _encoder_words(trained.spaces.observation, spec)
    else:
        of_policies = [(_encoder_words(one.observation, spec), one.name) for one in team.policies]
        words = "; ".join(f"{encoders} for {name}" for encoders, name in of_policies)
    return words if spec.core is None else f"{words} and {spec.core.name} of {spec.core.size} units"


def _encoder_words(observation: AnySpace, spec: NetworkSpec) -> str:
    leaves = encoded_leaves(observation, spec)
    if len(leaves) == 1:
        return leaves[0].encoder
    return ", ".join(f"{leaf.encoder} ({leaf.name})" for leaf in leaves)


def _is_gymnasiums_own(name: str) -> bool:
    registered = registry.get(name)
    made = None if registered is None else registered.entry_point
    return str(getattr(made, "__module__", made)).startswith("gymnasium.")


def _is_vector_only(name: str, family: str) -> bool:
    registered = registry.get(name)
    return family == "ALE" or (registered is not None and registered.entry_point is None)


def _given(first: str, options: Mapping[str, object]) -> str:
    return ", ".join(filter(None, (quoted(first), arguments_of(options))))


def arguments_of(options: Mapping[str, object]) -> str:
    """Keyword arguments of a call."""
    return ", ".join(f"{key}={_value(value)}" for key, value in options.items())


def indexed(key: object) -> str:
    """`["camera"]`, or `[0]`."""
    return f"[{_value(key)}]"


def _wraps(wrapping: Wrapping) -> tuple[str, str]:
    """The line that wraps `env`, and the module that it needs."""
    module, _, name = wrapping.name.rpartition(":")
    named = f"{module}.{name}" if module else f"gymnasium.wrappers.{name}"
    given = "".join(f", {key}={_value(value)}" for key, value in wrapping.arguments.items())
    return f"env = {named}(env{given})", module


def _value(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"np.array({value.tolist()!r}, np.{value.dtype})"
    return quoted(value) if isinstance(value, str) else repr(value)


def observed_expressions(trained: Trained, ports: Ports, *, is_vector: bool) -> dict[str, str]:
    """An array [1, *shape] for each input that the environment gives, by the input's name.

    Args:
        trained: The policy.
        ports: Its inputs.
        is_vector: Whether what the environment gives has the axis of a batch already.
    """
    axis = "" if is_vector else "[None]"
    inner = without_mask(trained.observation_space)
    by_path = {path: expression for path, expression in _paths(inner, "observation")}
    expressions = {}
    for port in ports.observed:
        if port.kind == "action_mask":
            source = "observation" if has_mask_key(trained.observation_space) else "info"
            given = f'np.asarray({source}["{MASK}"]).reshape(1, -1) != 0'
        else:
            given = f"np.asarray({by_path[port.path]}, {quoted(port.dtype)}){axis}"
        expressions[port.name] = given
    return expressions


def _paths(space: AnySpace, expression: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path of each leaf, and the expression for its value."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts: Iterable[tuple[object, AnySpace]]
        parts = space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in parts:
            inner = f"{expression}[{_value(key)}]"
            yield from (((str(key), *path), text) for path, text in _paths(part, inner))
    else:
        yield (), expression


def action_expression(space: AnySpace, ports: Ports, *, is_vector: bool) -> str:
    """The action for `env.step`, from the dict `outputs`."""
    names = iter([port.name for port in ports.actions])

    def built(part: AnySpace) -> str:
        if isinstance(part, spaces.Dict):
            return (
                "{" + ", ".join(f"{_value(key)}: {built(one)}" for key, one in part.items()) + "}"
            )
        if isinstance(part, spaces.Tuple):
            items = [built(one) for one in part.spaces]
            return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
        is_array = not part.shape and not isinstance(part, spaces.Discrete)
        row = "" if is_vector else "[0, ...]" if is_array else "[0]"
        return f"outputs[{quoted(next(names))}]{row}"

    return built(space)
