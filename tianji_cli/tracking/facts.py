"""What a tracker is told of a run beside its values: settings, seeds, commit, versions, summary."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import msgspec

from engine.messages import role_of
from engine.trace.summary import Summary
from tianji_cli.analysis.run import ManifestView
from tianji_cli.analysis.settings import Scalar, flat_settings

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_-]")
_VERSIONS = ("tianji", "python", "torch", "gymnasium", "numpy")


@dataclass(frozen=True)
class RunFacts:
    """A run, from its manifest. Nothing of the inventory is in it: hosts are not told on.

    Attributes:
        run_id: Its directory's name.
        identity: Letters, digits, `_` and `-`, at most 61. Distinguishes runs of one name in
            several directories, and stays when a run is tracked again.
        experiment: Name of its experiment.
        origin_unix_s: Unix time at `t_s` 0, but for the seconds in which roles were started.
        settings: The resolved experiment; keys as `-s` takes them.
        tags: Seed, commit, versions and so on.
        replicas: How many there are of each role.
    """

    run_id: str
    identity: str
    experiment: str
    origin_unix_s: float
    settings: dict[str, Scalar]
    tags: dict[str, str]
    replicas: dict[str, int]

    def unix_s(self, t_s: float) -> float:
        """The wall-clock time of a moment of the run."""
        return self.origin_unix_s + t_s


def facts_of(run_id: str, manifest: ManifestView) -> RunFacts:
    """Reads a manifest, leniently: what is missing is left out."""
    started_at = manifest.text("started_at")
    digest = hashlib.sha256(f"{run_id}\0{started_at}\0{manifest.data.get('hosts')}".encode())
    return RunFacts(
        run_id=run_id,
        identity=f"{_NOT_PLAIN.sub('-', run_id)[:48]}-{digest.hexdigest()[:12]}",
        experiment=manifest.text("experiment", "name") or "tianji",
        origin_unix_s=_unix_s(started_at) - manifest.before.elapsed_s,
        settings={
            name: _scalar(value)
            for name, value in flat_settings(manifest.section("experiment")).items()
        },
        tags=_tags_of(manifest),
        replicas=_replicas_of(manifest),
    )


def _unix_s(started_at: str) -> float:
    try:
        return datetime.fromisoformat(started_at).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _scalar(value: object) -> Scalar:
    """A list, or a mapping without keys, as JSON."""
    if value is None or isinstance(value, str | int | float):
        return value
    return json.dumps(value, ensure_ascii=False)


def _tags_of(manifest: ManifestView) -> dict[str, str]:
    words = {
        "algorithm": manifest.text("experiment", "algorithm", "name"),
        "env_id": manifest.text("experiment", "env", "id"),
        "policy": manifest.text("experiment", "policy"),
        "seed": manifest.text("experiment", "seed"),
        "num_hosts": str(len(manifest.section("hosts"))),
        "git_commit": manifest.text("git", "commit"),
        "git_dirty": manifest.text("git", "dirty"),
        "started_at": manifest.text("started_at"),
        "resumed_from": manifest.text("resumed_from", "run_id"),
        **{f"version_{name}": manifest.text("versions", name) for name in _VERSIONS},
    }
    return {name: text for name, text in words.items() if text}


def _replicas_of(manifest: ManifestView) -> dict[str, int]:
    found: Counter[str] = Counter()
    for process in manifest.section("processes").values():
        roles = process.get("roles") if isinstance(process, dict) else None
        found.update(role_of(str(role)) for role in roles or ())
    return dict(found)


def figures_of(summary: Summary) -> dict[str, float]:
    """The numbers of a summary, by name; `lag` has a level of its own."""
    figures: dict[str, float] = {}
    for name, value in flat_settings(msgspec.to_builtins(summary)).items():
        is_number = isinstance(value, int | float) and math.isfinite(value)
        if is_number and name not in ("schema_version", "seed"):
            figures[name] = float(value)  # type: ignore[arg-type]  # it is one
    return figures


def words_of(summary: Summary) -> dict[str, str]:
    """The words of a summary that say how the run ended."""
    return {"status": summary.status, "stop_reason": summary.stop_reason}
