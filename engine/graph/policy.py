"""Distribution policies as data (MSRL, ATC 2023): which functions are fused, how many replicas,
and by which channel each value that crosses a process border travels."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

from engine.config_file import Document, convert, parse_yaml, suggest
from engine.errors import ConfigError
from engine.spec import PositiveInt, Spec

Value = Literal["observation", "action", "rollout", "batch", "weights"]
ChannelKind = Literal["gather", "on_request", "latest"]
"""gather: many sources, nothing lost, bounded by tickets. on_request: the target asks.
latest: broadcast, only the newest counts, never blocks."""


class FragmentSpec(Spec, frozen=True, kw_only=True):
    """Functions that share a process and call each other directly."""

    functions: tuple[Literal["act", "env_step", "store", "update", "evaluate"], ...]
    replicas: PositiveInt | Literal["actors"]


class EdgeSpec(Spec, frozen=True, kw_only=True):
    """A value that crosses from one fragment's processes to another's."""

    source: str
    target: str
    carries: Value
    channel: ChannelKind


class Policy(Spec, frozen=True, kw_only=True):
    """A distribution policy."""

    name: str
    summary: str
    fragments: dict[str, FragmentSpec]
    edges: tuple[EdgeSpec, ...] = ()


def built_in_policies() -> list[str]:
    """Names of the policies that come with TianJi."""
    folder = resources.files("engine.graph") / "policies"
    return sorted(Path(entry.name).stem for entry in folder.iterdir())


def load_policy(name: str) -> Policy:
    """Reads a built-in policy.

    Raises:
        ConfigError: There is none of that name.
    """
    known = built_in_policies()
    if name not in known:
        raise ConfigError(
            f"unknown distribution policy {name!r}", where="policy", fix=suggest(name, known)
        )
    file = resources.files("engine.graph") / "policies" / f"{name}.yaml"
    document: Document = parse_yaml(file.read_text(encoding="utf-8"), source=f"policy {name}")
    return convert(document, Policy)
