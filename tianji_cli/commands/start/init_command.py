"""`tianji init`: writes an experiment, an environment and an inventory to start from."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.config.config_file import convert, load_experiment, parse_yaml
from engine.errors import ConfigError
from engine.spec import Experiment, check_experiment
from tianji_cli.config.lookup import shipped
from tianji_cli.output import Output
from tianji_cli.scaffold.project import KnownEnvironment, Project, ProjectFile, make_project


class InitDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `init --json` prints.

    Attributes:
        directory: As given.
        files: What was written, relative to it.
        commands: What to call next, in that directory.
    """

    schema_version: int = 1
    directory: str
    files: tuple[str, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True)
class InitRequest:
    """What to write, and where. Without `env_id`: an environment of the user's own."""

    directory: Path
    env_id: str | None = None
    algorithm: str = "ppo"


def init_command(request: InitRequest, output: Output) -> None:
    """Writes the files of a project, and says what comes next.

    Raises:
        ConfigError: A file is there already, or what was asked for cannot be trained; then nothing
            is written.
    """
    if request.env_id is None:
        project = make_project(request.algorithm)
    else:
        output.part_from_user_code()
        project = project_for(request.env_id, request.algorithm)
    written = write_project(project, request.directory)
    if output.is_json:
        output.document(_document(request, written, project))
    else:
        for line in _lines(request, written, project):
            output.data.print(line, soft_wrap=True)


def _document(
    request: InitRequest, written: Sequence[ProjectFile], project: Project
) -> InitDocument:
    return InitDocument(
        directory=str(request.directory),
        files=tuple(file.path for file in written),
        commands=project.commands,
    )


def _lines(request: InitRequest, written: Sequence[ProjectFile], project: Project) -> Iterator[str]:
    """What was written, and what comes next."""
    width = max(len(file.path) for file in written)
    yield from (f"wrote {file.path:{width}}  {file.about}" for file in written)
    is_elsewhere = request.directory.resolve() != Path.cwd()
    commands = [f"cd {shlex.quote(str(request.directory))}"] * is_elsewhere + [*project.commands]
    yield from (f"{'then' if number else 'next'}  {line}" for number, line in enumerate(commands))


def project_for(env_id: str, algorithm: str) -> Project:
    """A project for an environment that exists, tried out.

    Raises:
        ConfigError: It cannot be made, or the algorithm cannot learn in it.
    """
    from engine.host.user_code import restored_process

    with restored_process():
        import gymnasium

        found = gymnasium.registry.get(env_id.rpartition(":")[2])
        threshold = None if found is None else found.reward_threshold
        env = KnownEnvironment(env_id, threshold, _tested(env_id, algorithm))
        project = make_project(algorithm, env)
        try:
            _try_out(next(file for file in project.files if file.path == project.experiment))
        except ConfigError as error:
            option = "--algorithm" if error.where.startswith("algorithm") else "--env"
            raise ConfigError(error.what, where=option, fix=error.fix) from error
    return project


def _tested(env_id: str, algorithm: str) -> str:
    """The experiment that comes with TianJi for exactly this; empty if there is none."""
    for path in sorted(shipped("experiments").glob("*.yaml")):
        experiment, _ = load_experiment(path)
        is_plain = experiment.policy == "tianji" and not experiment.network.core
        if is_plain and (experiment.env.id, experiment.algorithm_name) == (env_id, algorithm):
            return path.read_text(encoding="utf-8")
    return ""


def _try_out(file: ProjectFile) -> None:
    """Makes the environment, the algorithm and its network once, as a run would."""
    from engine.graph.dataflow import build_graph
    from engine.graph.policy import read_policy
    from engine.runtime.outlining import outline_of

    experiment = convert(parse_yaml(file.text, source=file.path), Experiment)
    check_experiment(experiment)
    outline_of(experiment, build_graph(read_policy(experiment.policy), experiment).cut)


def write_project(project: Project, directory: Path) -> list[ProjectFile]:
    """Writes all files, or none.

    Returns:
        Those that were written: an optional one is left out where there is one already.

    Raises:
        ConfigError: A file is there already, or the directory cannot be written.
    """
    present = [file for file in project.files if _is_there(directory / file.path)]
    for file in present:
        if not file.is_optional:
            raise ConfigError(
                "there is such a file already, and it is not overwritten",
                where=str(directory / file.path),
                fix="give another directory: tianji init DIR",
            )
    wanted = [file for file in project.files if file not in present]
    written: list[Path] = []
    try:
        for file in wanted:
            path = directory / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as stream:
                written.append(path)
                stream.write(file.text)
    except OSError as error:
        for done in written:
            done.unlink(missing_ok=True)
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from error
    return wanted


def _is_there(path: Path) -> bool:
    """Also a broken link, through which nothing must be written."""
    return path.is_symlink() or path.exists()
