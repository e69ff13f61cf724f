"""The wrappers of an experiment (`env.wrappers`), put around each single environment."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import wrappers as of_gymnasium
from gymnasium.vector import VectorWrapper
from numpy.typing import NDArray

from engine.blame import blamed
from engine.config.config_file import suggest
from engine.errors import ConfigError
from engine.spec import EnvSpec, WrapperValue, module_of

Environment: TypeAlias = gymnasium.Env[Any, Any]
WrapperClass: TypeAlias = Callable[..., Environment]
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
MAX_CHARACTERS = 80
"""Of a space in an error."""
OWN_CLASS = (
    "write a subclass of gymnasium.Wrapper in a module of your own and give name: module:Class"
)
REFUSED: Mapping[type, tuple[str, str]] = {
    of_gymnasium.Autoreset: (
        "resets environments that TianJi resets itself, so episode ends would be lost",
        "leave it out",
    ),
    of_gymnasium.NormalizeObservation: (
        "keeps running statistics of its own in every environment: actors would disagree, the"
        " evaluator would start from nothing, and checkpoints would lack them",
        "leave it out and set network.normalize_observation=true: the learner's statistics,"
        " sent with the weights",
    ),
    of_gymnasium.NormalizeReward: (
        "keeps running statistics of its own in every environment, and changes the returns that"
        " are traced",
        "leave it out and set algorithm.normalize_reward=true, for training only",
    ),
    of_gymnasium.RecordVideo: (
        "writes files of the same names from every environment of every actor",
        "leave it out; after training, `tianji play RUN` writes a video",
    ),
}
"""Classes that break what a run relies on, with their subclasses: why, and what to do."""


@dataclass(frozen=True)
class Wrapping:
    """One wrapper with its arguments; a function from an environment to the wrapped one.

    Attributes:
        make: The class.
        name: As the experiment gives it.
        where: Its dotted key, such as `env.wrappers.0`.
        arguments: For the class, beside the environment.
    """

    make: WrapperClass
    name: str
    where: str
    arguments: Mapping[str, WrapperValue | NDArray[Any]]

    def __call__(self, env: Environment) -> Environment:
        """Wraps one environment.

        Raises:
            ConfigError: The constructor raises, or makes something without spaces.
        """
        given = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        around = f"{_short(env.observation_space)} and {_short(env.action_space)}"
        fix = "correct its arguments, or leave it out"
        try:
            with blamed(f"{self.name}({given}) cannot be made", where=self.where, fix=fix):
                wrapped = self.make(env, **self.arguments)
                for space in (wrapped.observation_space, wrapped.action_space):
                    if not isinstance(space, gymnasium.Space):
                        raise TypeError(f"its space is {space!r:.60}, not a gymnasium.Space")
                return wrapped
        except ConfigError as error:
            error.what += f"; it would go around {around}"
            named = [
                key for key in self.arguments if re.search(rf"\b{key}\b", str(error.__cause__))
            ]
            if len(named) == 1:
                error.where = f"{self.where}.{named[0]}"
            raise


def wrappings_of(spec: EnvSpec) -> list[Wrapping]:
    """The wrappers of an experiment in the order in which they are applied, innermost first.

    Raises:
        ConfigError: A name is unknown, not that of a wrapper of single environments, or of one
            that a run cannot use; or arguments do not suit its constructor.
    """
    return [
        _wrapping(entry, f"env.wrappers.{number}") for number, entry in enumerate(spec.wrappers)
    ]


def refuse_vector_only(spec: EnvSpec) -> None:
    """Raises ConfigError if wrappers are asked for, but no single environment can be made."""
    registered = gymnasium.registry.get(spec.registered_id)
    if spec.wrappers and registered is not None and registered.entry_point is None:
        raise ConfigError(
            f"{spec.id} has only a vector implementation, and wrappers go around single"
            " environments",
            where="env.wrappers",
            fix="also register it with an entry_point, or leave the wrappers out",
        )


def _wrapping(entry: Mapping[str, WrapperValue], where: str) -> Wrapping:
    name = str(entry["name"])
    arguments = {key: value for key, value in entry.items() if key != "name"}
    made = _checked_kind(_find(name, f"{where}.name"), name, f"{where}.name")
    _, *parameters = inspect.signature(made.__init__).parameters.values()  # without self
    if parameters and parameters[0].kind not in _VARIADIC:
        parameters = parameters[1:]  # without the environment
    _check_arguments(parameters, name, arguments, where)
    return Wrapping(made, name, where, {**arguments, **_arrays(parameters, arguments)})


def _arrays(
    parameters: Sequence[inspect.Parameter], arguments: Mapping[str, WrapperValue]
) -> dict[str, NDArray[Any]]:
    """The lists that a constructor takes as arrays only, as arrays; real numbers in single
    precision, as rollouts have them."""
    takes_arrays = {
        one.name
        for one in parameters
        if "ndarray" in str(one.annotation) and "tuple" not in str(one.annotation)
    }
    lists = {
        key: np.array(value)
        for key, value in arguments.items()
        if key in takes_arrays and isinstance(value, tuple)
    }
    return {
        key: value.astype(np.float32) if value.dtype.kind == "f" else value
        for key, value in lists.items()
    }


def _short(space: object) -> str:
    words = " ".join(str(space).split())
    return words if len(words) <= MAX_CHARACTERS else f"{words[: MAX_CHARACTERS - 3]}..."


def _find(name: str, where: str) -> object:
    """What a wrapper's name stands for; raises ConfigError."""
    module_name, attribute = module_of(name), name.rpartition(":")[2]
    if module_name is None:
        module: ModuleType = of_gymnasium
    else:
        what = f"the module {module_name!r} cannot be imported"
        with blamed(what, where=where, fix="correct its name, or install it"):
            module = importlib.import_module(module_name)
    with blamed(f"the wrapper {name!r} cannot be loaded", where=where, fix="install what it needs"):
        found = getattr(module, attribute, None)  # some of Gymnasium's are imported at this moment
    if found is not None:
        return found
    prefix = f"{module_name}:" if module_name is not None else ""
    known = [f"{prefix}{one}" for one in _wrappers_in(module)]
    if module_name is None and hasattr(of_gymnasium.vector, attribute.rpartition(".")[2]):
        raise _of_vectors(name, where)
    fix = suggest(name, known) if known else f"it has no wrapper; {OWN_CLASS}"
    raise ConfigError(f"unknown wrapper {name!r}", where=where, fix=fix)


def _wrappers_in(module: ModuleType) -> Iterable[str]:
    for name, value in vars(module).items():
        if inspect.isclass(value) and issubclass(value, gymnasium.Wrapper):
            yield name


def _checked_kind(
    made: object, name: str, where: str
) -> type[gymnasium.Wrapper[Any, Any, Any, Any]]:
    """The class, if it can be used; raises ConfigError."""
    if not inspect.isclass(made):
        raise ConfigError(f"{name} is not a class but {made!r:.60}", where=where, fix=OWN_CLASS)
    if issubclass(made, (VectorWrapper, gymnasium.vector.VectorEnv)):
        raise _of_vectors(name, where)
    if not issubclass(made, gymnasium.Wrapper):
        raise ConfigError(
            f"{name} is not a subclass of gymnasium.Wrapper", where=where, fix=OWN_CLASS
        )
    for refused, (why, fix) in REFUSED.items():
        if issubclass(made, refused):
            raise ConfigError(f"{name} {why}", where=where, fix=fix)
    return made


def _of_vectors(name: str, where: str) -> ConfigError:
    single = name.rpartition(":")[2].rpartition(".")[2]
    has_twin = inspect.isclass(getattr(of_gymnasium, single, None))
    return ConfigError(
        f"{name} wraps vector environments; env.wrappers go around each single environment",
        where=where,
        fix=f"name: {single}" if has_twin else OWN_CLASS,
    )


def _check_arguments(
    parameters: Sequence[inspect.Parameter],
    name: str,
    arguments: Mapping[str, WrapperValue],
    where: str,
) -> None:
    """Compares arguments with a constructor's parameters; raises ConfigError."""
    by_name = {one.name: one for one in parameters if one.kind not in _VARIADIC}
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    for key in arguments:
        if key not in by_name and not takes_any:
            fix = suggest(key, by_name) if by_name else "it has none: leave it out"
            raise ConfigError(f"{name} has no argument {key!r}", where=f"{where}.{key}", fix=fix)
    missing = [
        one.name
        for one in parameters
        if one.default is one.empty and one.kind not in _VARIADIC and one.name not in arguments
    ]
    _refuse_functions(by_name, name, [*arguments, *missing], where)
    if missing:
        raise ConfigError(
            f"{name} needs the argument {missing[0]!r}",
            where=where,
            fix=f"{{name: {name}, {', '.join(f'{one}: ...' for one in missing)}}}",
        )


def _refuse_functions(
    parameters: Mapping[str, inspect.Parameter], name: str, keys: Sequence[str], where: str
) -> None:
    """Raises ConfigError if one of these arguments has to be a function."""
    for key in keys:
        if key in parameters and "Callable" in str(parameters[key].annotation):
            raise ConfigError(
                f"{name} takes a function as {key!r}, which an experiment cannot give",
                where=where,
                fix=OWN_CLASS,
            )
