"""The best setting of a search as an experiment file, which `tianji up -x` runs."""

from __future__ import annotations

from typing import Any

import yaml

from engine.config.config_file import Document, apply_settings, convert
from engine.spec import Experiment
from tianji_cli.bench.study.records import StudyManifest
from tianji_cli.bench.study.spec import setting_words
from tianji_cli.bench.study.trials import SearchResult


def best_experiment(manifest: StudyManifest, task: str, found: SearchResult) -> str | None:
    """The text of the file; None if no trial is complete.

    The experiment is that of the task with the settings of the study and of the best trial. The
    budget of a trial is not part of it: what ends the run is what the experiment says.
    """
    best = found.best_trial
    if best is None:
        return None
    study = manifest.suite
    words = setting_words({**study.tasks[task].settings, **best.params})
    document = Document(task, manifest.experiments[task], {})
    data: dict[str, Any] = apply_settings(document, words).data
    lines = [
        f"The best of {len(found.trials)} trials of the study {manifest.bench_id} (task {task},"
        f" {best.variant}):",
        f"{found.objective} {best.value:g}, {found.direction}d, within {study.budget_of(task):g} s"
        " of training.",
    ]
    if _has_modules(data):
        lines.append("Its modules must be found from here: see docs/extending.md.")
    head = "".join(f"# {line}\n" for line in lines)
    return head + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def _has_modules(data: dict[str, Any]) -> bool:
    """Whether it names modules of the user's own."""
    return bool(convert(Document("", data, {}), Experiment).named_modules)
