"""Creates each environment of a suite once, in its own process: `ID...` in, one JSON list out.

User code runs here, so it cannot disturb the calling process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from engine.errors import ConfigError
from engine.search_path import look_in, module_command, searched, user_directories, with_own_path
from engine.spec import EnvSpec

CHECK_S = 60.0


class EnvProblem(msgspec.Struct, frozen=True):
    """Why an environment cannot be made."""

    env_id: str
    problem: str


def find_env_problems(ids: Sequence[str]) -> list[EnvProblem]:
    """Why environments of these ids cannot be made; empty if all can.

    Raises:
        ConfigError: The check itself failed.
    """
    command = module_command(sys.executable, "tianji_cli.bench.tasks.env_check", *ids)
    directories = os.pathsep.join(dict.fromkeys([*user_directories(), *searched()]))
    try:
        done = subprocess.run(
            command,
            env=with_own_path({**os.environ, "TIANJI_MODULES": directories}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CHECK_S,
            check=False,
        )
        return msgspec.json.decode(done.stdout, type=list[EnvProblem])
    except (subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        raise ConfigError(
            f"its environments ({', '.join(ids)}) cannot be tried: {error}", where="tasks"
        ) from error


def main() -> None:
    """See the module's first lines."""
    out = os.dup(1)
    os.dup2(2, 1)
    look_in(user_directories())
    problems = [EnvProblem(i, text) for i in sys.argv[1:] if (text := _problem(i))]
    os.write(out, msgspec.json.encode(problems))


def _problem(env_id: str) -> str:
    import gymnasium

    try:
        _make(env_id)
    except ConfigError as error:
        return error.what
    except gymnasium.error.UnregisteredEnv as error:
        return f"unknown environment {env_id!r}: {error}"
    except BaseException as error:  # noqa: BLE001 - user code may raise anything
        return f"{env_id} cannot be made: {type(error).__name__}: {error}"
    return ""


def _make(env_id: str) -> None:
    """Makes an environment; those with several agents are named with their module."""
    if ":" in env_id:
        from engine.envs.make import make_vector_env  # PyTorch, only where it is needed

        make_vector_env(EnvSpec(id=env_id, num_envs=1)).close()
    else:
        import gymnasium

        gymnasium.make(env_id).close()


if __name__ == "__main__":
    main()
