"""Reads action masks: which choices of a policy are valid in a state.

An environment gives them under the key `action_mask`, beside what is observed in a Dict (as
PettingZoo's environments do) or in its info. A mask has one number for each choice of each
categorical entry, flat in their order (as sb3-contrib has it), or the structure of the action
space. What is not 0 is valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from engine.errors import RunFailedError
from engine.spaces.action_parts import parts_of
from engine.spaces.leaves import AnySpace, Structure
from engine.spaces.observations import MASK

Source: TypeAlias = Literal["observation", "info"]
Mask: TypeAlias = npt.NDArray[np.bool_]


class MaskReader:
    """The masks of a vector environment, checked.

    After the end of an episode nothing is chosen: a mask that is missing or has no valid choice
    there stands for all choices.

    Args:
        action: Space of one action.
        source: Where the masks are.
        num_envs: B.
        env_id: For errors.
        first_env: Number of the first environment, for errors.
    """

    def __init__(
        self, action: AnySpace, source: Source, num_envs: int, env_id: str, first_env: int = 0
    ) -> None:
        parts = parts_of(action)
        self._action = action
        self._source = source
        self._shape = (num_envs, parts.num_logits)
        self._firsts = list(accumulate(parts.nvec[:-1], initial=0))
        self._env_id = env_id
        self._first_env = first_env
        self._num_steps = 0

    def read(
        self, observation: Structure, info: Mapping[str, Any], ended: Mask | None = None
    ) -> Mask:
        """The masks after a reset or a step, bool [B, choices].

        Args:
            observation: Of all environments, as the vector environment returned it.
            info: From the same call.
            ended: Which episodes have ended with it, bool [B]; none after a reset.

        Raises:
            RunFailedError: A mask has the wrong size or no valid choice, or is missing.
        """
        self._num_steps = 0 if ended is None else self._num_steps + 1
        source = observation if self._source == "observation" else info
        given = source.get(MASK)
        if isinstance(given, np.ndarray) and given.dtype != object and given.ndim > 1:
            mask: Mask = given.reshape(len(given), -1) != 0
            is_given = info.get(f"_{MASK}") if self._source == "info" else None
        else:
            mask, is_given = self._one_by_one(given, info)
        if mask.shape != self._shape:
            raise self._refused(f"has {mask.shape[-1]} entries; expected {self._shape[-1]}", 0)
        has_choice = np.asarray(np.logical_or.reduceat(mask, self._firsts, axis=1).all(axis=1))
        if is_given is not None:
            has_choice &= is_given
        if not has_choice.all():
            mask = self._completed(mask, has_choice, ended, is_given)
        return mask

    def _completed(
        self, mask: Mask, has_choice: Mask, ended: Mask | None, is_given: Mask | None
    ) -> Mask:
        """All choices where episodes have ended; raises RunFailedError elsewhere."""
        lacks = ~has_choice if ended is None else ~(has_choice | ended)
        if lacks.any():
            env = int(lacks.argmax())
            is_missing = is_given is not None and not is_given[env]
            raise self._refused("is missing" if is_missing else "has no valid choice", env)
        return mask | ~has_choice[:, None]

    def _one_by_one(self, given: Any, info: Mapping[str, Any]) -> tuple[Mask, Mask]:  # noqa: ANN401
        """Masks that have the structure of actions, or are missing for some environments."""
        num_envs, num_choices = self._shape
        mask = np.zeros(self._shape, np.bool_)
        is_given = np.zeros(num_envs, np.bool_)
        if given is None:
            return mask, is_given
        told = info.get(f"_{MASK}") if self._source == "info" else None
        for env in range(num_envs):
            if told is not None and not told[env]:
                continue
            flat = flat_mask(self._action, given, env)
            if flat.size != num_choices:
                raise self._refused(f"has {flat.size} entries; expected {num_choices}", env)
            mask[env], is_given[env] = flat != 0, True
        return mask, is_given

    def _refused(self, what: str, env: int) -> RunFailedError:
        when = f"in step {self._num_steps}" if self._num_steps else "in reset"
        return RunFailedError(
            f"the action mask of environment {self._first_env + env} {what} {when}",
            where=f"env.id {self._env_id}",
            fix=f"{MASK} needs 1 for a valid choice and 0 for others, at least one 1 for each"
            " choice to make; docs/extending.md shows how",
        )


def flat_mask(space: AnySpace, given: Any, env: int | None) -> npt.NDArray[Any]:  # noqa: ANN401
    """The mask of one action as a vector.

    Args:
        space: Of the action, or the part of it that the mask is for.
        given: Its mask; None if there is nothing to choose.
        env: Whose it is, where a vector environment has gathered masks of all; None if it is one.
    """
    if isinstance(given, Mapping):  # beside each key Gymnasium puts another, with an underscore
        parts = space.items() if isinstance(space, spaces.Dict) else ()
        masks = [flat_mask(part, given.get(key), env) for key, part in parts]
        return np.concatenate(masks) if masks else np.zeros(0)
    if env is not None and given is not None and not isinstance(given, tuple):
        return flat_mask(space, given[env], None)
    if given is None or _is_flat(given):
        return np.zeros(0) if given is None else np.ravel(np.asarray(given))
    inner = space.spaces if isinstance(space, spaces.Tuple) else [space] * len(given)
    masks = [flat_mask(part, mask, env) for part, mask in zip(inner, given, strict=False)]
    return np.concatenate(masks) if masks else np.zeros(0)


def _is_flat(given: Any) -> bool:  # noqa: ANN401
    """Whether a mask is an array or a plain list of numbers, rather than one mask for each part."""
    return not isinstance(given, (tuple, list)) or all(np.ndim(value) == 0 for value in given)
