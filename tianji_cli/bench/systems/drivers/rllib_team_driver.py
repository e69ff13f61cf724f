"""RLlib's PPO with several agents that share one policy, on one task. Runs in RLlib's interpreter.

    python rllib_team_driver.py job.json

It runs until it is asked to stop (SIGINT or SIGTERM).
"""

from __future__ import annotations

from typing import Any

import rllib_driver
from counted_team import make_counted_team

SHARED = "shared"


def config_of(task: dict[str, Any], seed: int) -> Any:  # noqa: ANN401 - Ray has no types here
    """RLlib's own configuration object, as for one agent.

    RLlib counts a batch in env steps and a minibatch in those of its agents, all of whom are
    always there in the environments of a benchmark.
    """
    from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
    from ray.tune.registry import register_env

    hp = task["algorithm"]
    num_agents = len(make_counted_team(task["env"]).possible_agents)
    of_one = {**hp, "name": "ppo", "minibatch_steps": hp["minibatch_steps"] * num_agents}
    config = rllib_driver.config_of({**task, "algorithm": of_one}, seed)
    register_env(
        rllib_driver.ENV, lambda _config: ParallelPettingZooEnv(make_counted_team(task["env"]))
    )
    config.multi_agent(policies={SHARED}, policy_mapping_fn=lambda *_, **__: SHARED)
    # It would refuse a minibatch, in steps of agents, of more than the env steps of a batch.
    return config.experimental(_validate_config=False)


if __name__ == "__main__":
    rllib_driver.main(config_of)
