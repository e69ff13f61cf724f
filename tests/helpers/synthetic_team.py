"""Makes the run of `synthetic_run` one of a team: two hunters that share a policy, and prey."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean

import msgspec

from engine.trace.reader import read_summary, read_table
from engine.trace.records import Episode, Evaluation, Production
from tests.helpers.synthetic_run import WINDOW, write_rows, write_synthetic_run
from tianji_cli.storage.run_dir import RunPaths

HUNTERS, PREY = ("hunter_0", "hunter_1"), "prey<1>"


def write_team_run(root: Path, return_of: str | None = None, **settings: float) -> RunPaths:
    """Writes the run; with `return_of` its mean return and threshold are about that one."""
    paths = write_synthetic_run(root, **settings)  # type: ignore[arg-type]
    episodes = [
        _of_team(row, number) for number, row in enumerate(read_table(paths.trace, Episode))
    ]
    production = [
        msgspec.structs.replace(row, agent_steps=3 * row.env_steps - row.sequence % 7)
        for row in read_table(paths.trace, Production)
    ]
    for table in ("episodes", "production"):
        (paths.trace / f"{table}.jsonl").unlink()
    write_rows(paths.trace, [*episodes, *production, *map(_evaluated, episodes[20::60])])
    summary = read_summary(paths.summary)
    manifest = msgspec.json.decode(paths.manifest.read_bytes())
    manifest["experiment"]["stop"]["return_of"] = return_of
    paths.manifest.write_bytes(msgspec.json.encode(manifest))
    assert summary is not None
    last = episodes[-WINDOW:]
    agents = {name: fmean(_named(row.agent_returns)[name] for row in last) for name in NAMES}
    policies = {"hunters": agents[HUNTERS[0]] + agents[HUNTERS[1]], PREY: agents[PREY]}
    known = {None: summary.return_mean, **agents, **policies}
    evaluated = _evaluated(episodes[20 + 60 * ((len(episodes) - 21) // 60)])
    judged = {**_named(evaluated.agent_returns), **_named(evaluated.policy_returns)}
    changed = msgspec.structs.replace(
        summary,
        return_of=return_of,
        return_mean=known[return_of],
        evaluation_return=judged[return_of] if return_of else evaluated.return_mean,
        team_return=summary.return_mean,
        agent_returns=agents,
        policy_returns=policies,
        agent_steps_collected=sum(int(row.agent_steps or 0) for row in production),
    )
    paths.summary.write_bytes(msgspec.json.encode(changed))
    return paths


NAMES = (*HUNTERS, PREY)


def _named(returns: dict[str, float] | msgspec.UnsetType) -> dict[str, float]:
    assert returns
    return returns


def _of_team(row: Episode, number: int) -> Episode:
    first = round(0.5 * row.episode_return + 40 * math.sin(number / 30), 3)
    second = round(0.8 * row.episode_return - 30, 3)
    prey = row.episode_return - first - second
    return msgspec.structs.replace(
        row,
        agent_returns=dict(zip(NAMES, (first, second, prey), strict=True)),
        policy_returns={"hunters": first + second, PREY: prey},
    )


def _evaluated(row: Episode) -> Evaluation:
    return Evaluation(
        t_s=row.t_s,
        evaluator=0,
        version=row.version,
        episodes=1,
        return_mean=row.episode_return,
        return_min=row.episode_return,
        return_max=row.episode_return,
        length_mean_env_steps=row.length_env_steps,
        evaluate_s=0.1,
        env_steps_collected=row.env_steps_collected,
        agent_returns=row.agent_returns,
        policy_returns=row.policy_returns,
    )
