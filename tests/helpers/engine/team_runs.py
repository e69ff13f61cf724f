"""A team that learns within seconds, and the layouts under which it does."""

from __future__ import annotations

CLIMBING = """
version: 1
name: climbing
env: {id: Climbing-v0, num_envs: 8}
agents: separate
algorithm: {name: ippo, rollout_steps: 10, batch_steps: 160, minibatch_steps: 80, num_epochs: 3,
  learning_rate: 0.005, entropy_coefficient: 0.01}
network: {hidden_sizes: [16]}
learner: {compile: "off"}
checkpoint: {every_s: null}
stop: {env_steps: 2400}
"""
BEST = 11.0
"""Of the climbing game; acting evenly gets -31 / 9."""
TWO_STEP = """
version: 1
name: two_step
env: {id: TwoStep-v0, num_envs: 8}
algorithm: {name: qmix, rollout_steps: 12, batch_size: 32, updates_per_batch: 8, replay_ratio: 8,
  replay_capacity: 2000, min_replay_size: 200, target_update_period: 24, loss: squared,
  learning_rate: 0.003, epsilon_decay_env_steps: 2000}
network: {hidden_sizes: [32]}
staleness: {mode: unbounded}
learner: {compile: "off"}
checkpoint: {every_s: null}
stop: {env_steps: 4000}
"""
BEST_OF_TWO_STEPS = 8.0
"""Acting evenly gets 4.75; a sum of values settles for 7."""
LAYOUTS = [
    ("local", 1, ()),
    ("tianji", 1, ()),
    ("tianji", 1, ("groups=2",)),
    ("synchronous", 1, ()),
    ("single-learner-coarse", 1, ()),
    ("single-learner-fine", 1, ()),
    ("central", 1, ()),
    ("environments", 1, ("agents=shared",)),
    ("environments", 2, ()),
]
"""Policy, learners of one policy of the team each, settings."""
