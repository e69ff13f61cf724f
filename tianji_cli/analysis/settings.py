"""Finds the settings that differ between compared runs (pure functions)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import msgspec

from tianji_cli.analysis.run import ManifestView

MAX_SETTINGS = 100
"""Number of settings shown; runs of two algorithms differ in some dozens."""
MAX_VALUE = 80
MAX_NAME = 120
MAX_LEVELS = 8
"""A mapping below is one value; experiments have four."""

Scalar = str | int | float | bool | None


class DifferingSetting(msgspec.Struct, frozen=True, kw_only=True):
    """One key of the resolved experiments that is not the same in all runs."""

    setting: str
    """In the form that `-s` takes: `algorithm.learning_rate`."""
    values: list[Scalar]
    """One for each run, in their order; null where a run has no such key."""


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that differ between several runs."""

    settings: list[DifferingSetting] = []
    num_left_out: int = 0
    """Differing settings beyond those of the list."""


def differing_settings(manifests: Sequence[ManifestView]) -> Differences:
    """The keys of the experiments whose values are not the same in all runs.

    Args:
        manifests: Of the runs that are compared.

    Returns:
        By name, a bounded number of them, each value of bounded length.
    """
    flat = [_flat(manifest.section("experiment")) for manifest in manifests]
    names = sorted({name for settings in flat for name in settings})
    differing = [name for name in names if len({_key(settings, name) for settings in flat}) > 1]
    shown = [
        DifferingSetting(
            setting=_cut(name, MAX_NAME), values=[_shown(settings.get(name)) for settings in flat]
        )
        for name in differing[:MAX_SETTINGS]
    ]
    return Differences(settings=shown, num_left_out=len(differing) - len(shown))


def setting_cells(setting: DifferingSetting) -> tuple[str, ...]:
    """The values as texts, a dash where a run has no such key."""
    return tuple("–" if value is None else _text(value) for value in setting.values)


def settings_note(differences: Differences) -> str:
    """Note on what the list of settings leaves out; empty if it is complete."""
    if not differences.settings:
        return "none: the experiments of all runs are the same"
    left_out = differences.num_left_out
    return f"and {left_out:,} more, see the resolved experiments" if left_out else ""


def _flat(section: Mapping[str, object], prefix: str = "", level: int = 1) -> dict[str, object]:
    """Nested keys joined by dots; an empty mapping gives none."""
    found: dict[str, object] = {}
    for key, value in section.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and level < MAX_LEVELS:
            found.update(_flat(value, f"{name}.", level + 1))
        else:
            found[name] = value
    return found


def _key(settings: Mapping[str, object], name: str) -> str:
    """A value as a text that equal values share: `1` and `1.0` are the same setting.

    A key that is null equals one that is absent.
    """
    value = settings.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and value == float_of(value):
        value = float_of(value)
    return json.dumps(value, sort_keys=True)


def float_of(value: int) -> float | None:
    """The same number as a float, if there is one."""
    try:
        return float(value)
    except OverflowError:
        return None


def _shown(value: object) -> Scalar:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return _cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _text(value: Scalar) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cut(text: str, length: int = MAX_VALUE) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
