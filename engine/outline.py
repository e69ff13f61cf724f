"""What a network of a run gets, chooses and remembers, in words: for `tianji plan`."""

from __future__ import annotations

import msgspec


class OutlinedLeaf(msgspec.Struct, frozen=True, kw_only=True):
    """One leaf of an observation.

    Attributes:
        name: `observation` if it is the only one, else as in `network.encoders`.
        space: In Gymnasium's words.
        encoder: Or the whole trunk, of a lone Box.
    """

    name: str
    space: str
    encoder: str


class OutlinedAction(msgspec.Struct, frozen=True, kw_only=True):
    """One leaf of an action.

    Attributes:
        name: `action` if it is the only one, else `action.` and its path.
        space: In Gymnasium's words.
        choices: Number of choices of each categorical entry.
        num_reals: Number of real entries.
    """

    name: str
    space: str
    choices: tuple[int, ...]
    num_reals: int


class OutlinedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy of several agents, and what each of them sees and chooses.

    Attributes:
        name: As the experiment has it.
        agents: Who acts with it.
        observation, action: Leaf by leaf; with the agent's number, where several share it.
    """

    name: str
    agents: tuple[str, ...]
    observation: tuple[OutlinedLeaf, ...]
    action: tuple[OutlinedAction, ...]


class OutlinedReplay(msgspec.Struct, frozen=True, kw_only=True):
    """The replay stores of a run.

    Attributes:
        stores: How many there are.
        env_steps: That each holds.
        store_bytes: Memory of each.
        saved_bytes: Most disk space for all that checkpoints keep of them; 0 if they are not saved.
    """

    stores: int
    env_steps: int
    store_bytes: int
    saved_bytes: int


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """What crosses the border between environment and network.

    Attributes:
        observation, action: Leaf by leaf; empty for several agents.
        action_mask: Where masks come from: `observation`, `info` or None.
        core: Name and size of a memory, such as `gru of 128`; None without one.
        replay: Its replay stores; None if samples come from a queue.
        policies: Of several agents; empty for one.
    """

    observation: tuple[OutlinedLeaf, ...]
    action: tuple[OutlinedAction, ...]
    action_mask: str | None
    core: str | None
    replay: OutlinedReplay | None = None
    policies: tuple[OutlinedPolicy, ...] = ()
