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
MAX_LABEL = 30
MAX_NOTE = 200
MAX_RUN_COLUMNS = 6
IGNORED = ("seed", "name")
"""Keys in which the runs of a group can differ."""

Scalar = str | int | float | bool | None


class DifferingSetting(msgspec.Struct, frozen=True, kw_only=True):
    """One key of the resolved experiments that is not the same in all runs."""

    setting: str
    """In the form that `-s` takes: `algorithm.learning_rate`."""
    values: list[Scalar]
    """One for each run, in their order; null where a run has no such key."""


class RunGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Runs with equal settings, whatever their seeds and names."""

    label: str
    """What sets them apart from the other groups."""
    runs: list[int]
    """Their numbers among the compared runs, from 0."""
    seeds: list[int | None]
    """Of each of them; null where the manifest has none."""

    @property
    def title(self) -> str:
        """Its label and size."""
        return f"{self.label}, n = {len(self.runs)}"


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that differ between several runs."""

    settings: list[DifferingSetting] = []
    num_left_out: int = 0
    """Differing settings beyond those of the list."""
    groups: list[RunGroup] = []
    """Runs that differ in seed or name only, together; empty if there are no two such runs."""


def differing_settings(manifests: Sequence[ManifestView]) -> Differences:
    """The keys of the experiments whose values are not the same in all runs.

    Args:
        manifests: Of the runs that are compared.

    Returns:
        By name, a bounded number of them, each value of bounded length.
    """
    flat = [flat_settings(manifest.section("experiment")) for manifest in manifests]
    names = sorted({name for settings in flat for name in settings})
    differing = [name for name in names if len({_key(settings, name) for settings in flat}) > 1]
    shown = [
        DifferingSetting(
            setting=_cut(name, MAX_NAME), values=[_shown(settings.get(name)) for settings in flat]
        )
        for name in differing[:MAX_SETTINGS]
    ]
    return Differences(
        settings=shown,
        num_left_out=len(differing) - len(shown),
        groups=_group(manifests, flat, names, shown),
    )


def _group(
    manifests: Sequence[ManifestView],
    flat: Sequence[Mapping[str, object]],
    names: Sequence[str],
    differing: Sequence[DifferingSetting],
) -> list[RunGroup]:
    """The groups in order of their first runs; none if each run has settings of its own."""
    deciding = [name for name in names if name not in IGNORED]
    members: dict[tuple[str, ...], list[int]] = {}
    for number, settings in enumerate(flat):
        members.setdefault(tuple(_key(settings, name) for name in deciding), []).append(number)
    if len(members) == len(manifests):
        return []
    told = [item for item in differing if item.setting not in IGNORED]
    labels = _unique([_label(told, runs[0]) for runs in members.values()])
    return [
        RunGroup(label=label, runs=runs, seeds=[_seed(manifests[number]) for number in runs])
        for label, runs in zip(labels, members.values(), strict=True)
    ]


def _label(differing: Sequence[DifferingSetting], run: int) -> str:
    """What sets a run apart from those of other groups, shortly: `learning_rate 0.001`."""
    words = [f"{item.setting.rpartition('.')[2]} {_text(item.values[run])}" for item in differing]
    return _cut(", ".join(words) or "all runs", MAX_LABEL)


def _unique(labels: Sequence[str]) -> list[str]:
    """Labels that were cut can be equal: then each begins with its number."""
    if len(set(labels)) == len(labels):
        return list(labels)
    return [f"{number}: {label}" for number, label in enumerate(labels, start=1)]


def _seed(manifest: ManifestView) -> int | None:
    seed = manifest.number("experiment", "seed")
    return None if seed is None else int(seed)


def setting_cells(setting: DifferingSetting) -> tuple[str, ...]:
    """The values as texts, a dash where a run has no such key."""
    return tuple(map(_text, setting.values))


def settings_columns(
    differences: Differences, runs: Sequence[str]
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Headings and rows of the table of what differs: a column for each run.

    Many runs, some of which have the same settings, have a column for each group of these.

    Args:
        differences: Of these runs.
        runs: What they are called.
    """
    groups = differences.groups
    if len(runs) <= MAX_RUN_COLUMNS or not groups:
        rows = [(item.setting, *setting_cells(item)) for item in differences.settings]
        return ["setting", *runs], rows
    rows = [
        (item.setting, *(_of_group(item, group) for group in groups))
        for item in differences.settings
    ]
    return ["setting", *(group.title for group in groups)], rows


def _of_group(setting: DifferingSetting, group: RunGroup) -> str:
    values = dict.fromkeys(_text(setting.values[number]) for number in group.runs)
    return _cut(", ".join(values))


def settings_note(differences: Differences) -> str:
    """Note on what the list of settings leaves out; empty if it is complete."""
    if not differences.settings:
        return "none: the experiments of all runs are the same"
    left_out = differences.num_left_out
    return f"and {left_out:,} more, see the resolved experiments" if left_out else ""


def groups_note(differences: Differences, runs: Sequence[str]) -> str:
    """Which runs have the same settings, so that figures draw their mean; empty if none do."""
    several = [group for group in differences.groups if len(group.runs) > 1]
    words = [_cut(", ".join(runs[number] for number in group.runs), MAX_NOTE) for group in several]
    if not several:
        return ""
    return "same settings, drawn as mean and band over seeds: " + "; ".join(words)


def flat_settings(
    section: Mapping[str, object], prefix: str = "", level: int = 1
) -> dict[str, object]:
    """Nested keys joined by dots; an empty mapping gives none."""
    found: dict[str, object] = {}
    for key, value in section.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and level < MAX_LEVELS:
            found.update(flat_settings(value, f"{name}.", level + 1))
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
    """A value as a text; a dash for none."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value)


def _cut(text: str, length: int = MAX_VALUE) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
