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
