"""Which files `tianji init` writes, and what is in them: decided here, written elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from string import Template

from engine.config.config_file import suggest
from engine.envs.names import family_of
from engine.errors import ConfigError

OWN_ENV = "Docking-v0"
_OWN_THRESHOLD = 0.8
_OWN_ENV_STEPS = 300_000
_KNOWN_ENV_STEPS = 1_000_000
_WRAPPERS = 'wrappers: [{name: "minigrid.wrappers:ImgObsWrapper"}]  # the image, not the text'
_SETTINGS = {
    "MiniGrid": (_WRAPPERS,),
    "BabyAI": (_WRAPPERS,),
    "ALE": ("clip_reward: true      # learn from its sign; traced returns are the game's",),
}
"""What environments of a family need, or usually get: lines of the section `env`."""
_TITLES = {
    **{"ppo": "PPO", "impala": "IMPALA", "dqn": "DQN", "apex": "Ape-X"},
    **{"sac": "SAC", "td3": "TD3", "ddpg": "DDPG"},
}
_CONTINUOUS = ("sac", "td3", "ddpg")
"""Algorithms whose actions are real numbers only."""
_CHOICES = {
    "spaces": "Box, Discrete",
    "action_space": "Discrete(3)",
    "push": "(int(action) - 1)  # 0 pushes left, 1 not at all, 2 right",
}
_REALS = {
    "spaces": "Box",
    "action_space": "Box(-1.0, 1.0, (1,), np.float32)",
    "push": "float(action[0])  # -1 pushes left, 1 right",
}
"""What fills the environment of a new project."""


@dataclass(frozen=True)
class KnownEnvironment:
    """An environment to start from.

    Attributes:
        id: For `env.id`.
        threshold: The return that counts as solved; None if nobody has named one.
        tested: An experiment that is known to learn in it; empty if there is none.
    """

    id: str
    threshold: float | None = None
    tested: str = ""


@dataclass(frozen=True)
class ProjectFile:
    """A file to write.

    Attributes:
        path: Relative to the project, with slashes.
        text: What is in it.
        about: What it is, in a few words.
        is_optional: Whether the project is complete without it.
    """

    path: str
    text: str
    about: str
    is_optional: bool = False


@dataclass(frozen=True)
class Project:
    """All files, and the commands that come next.

    Attributes:
        experiment: Path of the experiment, relative to the project.
    """

    files: tuple[ProjectFile, ...]
    experiment: str
    commands: tuple[str, ...]


def known_algorithms() -> list[str]:
    """Those that there is a template for."""
    folder = resources.files(__package__) / "templates" / "algorithms"
    return sorted(entry.name.partition(".")[0] for entry in folder.iterdir())


def make_project(algorithm: str, env: KnownEnvironment | None = None) -> Project:
    """The files of a new project.

    Args:
        algorithm: For `algorithm.name`.
        env: To train in; None: one that the project defines itself.

    Raises:
        ConfigError: There is no such algorithm.
    """
    known = known_algorithms()
    if algorithm not in known:
        fix = suggest(algorithm, known)
        raise ConfigError(f"unknown algorithm {algorithm!r}", where="--algorithm", fix=fix)
    name = f"{stem_of(env.id if env else OWN_ENV)}_{algorithm}"
    experiment = ProjectFile(
        f"experiments/{name}.yaml",
        env.tested if env and env.tested else _experiment(name, algorithm, env),
        f"an experiment: {_TITLES.get(algorithm, algorithm)} on {env.id if env else OWN_ENV}",
    )
    actions = _REALS if algorithm in _CONTINUOUS else _CHOICES
    own = ProjectFile(
        "docking.py", _filled("docking.py", name=name, **actions), "an environment of your own"
    )
    hosts = ProjectFile(
        "inventories/hosts.yaml", _filled("hosts.yaml", name=name), "the hosts of a run"
    )
    files = (experiment, hosts) if env else (own, experiment, hosts)
    commands = (f"tianji plan -x {experiment.path}", f"tianji up -x {experiment.path}", *_AFTER)
    return Project((*files, _readme(name, files, commands)), experiment.path, commands)


_AFTER = ("tianji report", "tianji evaluate", "tianji play")
"""Commands that take the newest run."""


def stem_of(env_id: str) -> str:
    """A file name for an environment.

    >>> [stem_of(one) for one in ("CartPole-v1", "ALE/Pong-v5", "mine:MiniGrid-Empty-5x5-v0")]
    ['cartpole', 'pong', 'minigrid_empty_5x5']
    """
    name = re.split("[:/]", env_id)[-1]
    return re.sub(r"\W+", "_", re.sub(r"-v\d+$", "", name)).strip("_").lower()


def _experiment(name: str, algorithm: str, env: KnownEnvironment | None) -> str:
    title = _TITLES.get(algorithm, algorithm)
    if env is None:
        threshold: float | None = _OWN_THRESHOLD
        section, steps, place = (
            _text("own_env.yaml"),
            _OWN_ENV_STEPS,
            "the environment of docking.py",
        )
    else:
        threshold, steps, place = env.threshold, _KNOWN_ENV_STEPS, env.id
        lines = _SETTINGS.get(family_of(env.id.rpartition(":")[2]), ())
        more = "".join(f"  {line}\n" for line in lines)
        section = _filled("known_env.yaml", env_id=env.id) + more
    goal = "" if threshold is None else f", until the last 100 episodes average {threshold:g}"
    network = (
        "{hidden_sizes: [64, 64]}" if env is None else "{}  # by the observation; or `name: mlp`"
    )
    return _filled(
        "experiment.yaml",
        about=f"{title} in {place}{goal}.",
        name=name,
        env=section,
        algorithm=_text(f"algorithms/{algorithm}.yaml").rstrip("\n"),
        network=network,
        env_steps=str(steps),
        threshold="null" if threshold is None else f"{threshold:g}",
    )


def _readme(name: str, files: tuple[ProjectFile, ...], commands: tuple[str, ...]) -> ProjectFile:
    table = "\n".join(f"| `{file.path}` | {file.about} |" for file in files)
    text = _filled("README.md", title=name, table=table, commands="\n".join(commands))
    return ProjectFile("README.md", text, "these files and the next commands", is_optional=True)


def _filled(template: str, **values: str) -> str:
    return Template(_text(template)).substitute(values)


def _text(template: str) -> str:
    file = resources.files(__package__) / "templates" / f"{template}.txt"
    return file.read_text(encoding="utf-8")
