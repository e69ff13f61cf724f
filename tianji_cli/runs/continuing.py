"""`up --continue`: goes on with a run that was cut short, under the next name.

A batch system that starts a job again starts the same command again, possibly on other hosts. The
runs are named RUN, RUN-2, RUN-3, ...: each resumes the newest checkpoint of those before it, whose
remains are brought home first, as far as their hosts can be reached.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError
from tianji_cli.provisioning.reaching import Connect, connect
from tianji_cli.runs.detached import DetachedRun
from tianji_cli.runs.resume import resume_hint
from tianji_cli.storage.consent import Consent
from tianji_cli.storage.deployment import DEPLOYMENT_NAME
from tianji_cli.storage.run_dir import RunPaths, is_only_claimed


@dataclass(frozen=True)
class Continuation:
    """What to start.

    Attributes:
        name: Of the new run.
        resumes: The run whose newest checkpoint it goes on from; None if there is none.
        notes: For the user.
    """

    name: str
    resumes: str | None = None
    notes: tuple[str, ...] = ()


def names_of(run_id: str) -> Iterator[str]:
    """RUN, RUN-2, RUN-3, ..."""
    return (run_id if number == 1 else f"{run_id}-{number}" for number in itertools.count(1))


def begun_runs(results: Path, run_id: str) -> list[RunPaths]:
    """The runs of this name that have begun, oldest first."""
    places = itertools.takewhile(_has_begun, (results / name for name in names_of(run_id)))
    return [RunPaths(place) for place in places]


def _has_begun(root: Path) -> bool:
    return root.exists() and not is_only_claimed(root)


def is_trusted(paths: RunPaths) -> bool:
    """Whether its files are this user's: on another node of a cluster no record says so."""
    try:
        return paths.root.stat().st_uid == os.getuid()
    except OSError:
        return False


def continuation(results: Path, run_id: str, reach: Connect = connect) -> Continuation:
    """Finds where to go on, and brings home what is left of earlier runs on their hosts.

    Args:
        results: The results directory.
        run_id: The first name.
        reach: Makes connections.
    """
    earlier = begun_runs(results, run_id)
    name = next(itertools.islice(names_of(run_id), len(earlier), None))
    notes = [words for paths in earlier for words in _bring_home(paths, reach)]
    for paths in reversed(earlier):
        if is_trusted(paths) and resume_hint(paths):
            return Continuation(name, str(paths.root), tuple(notes))
    if earlier:
        notes.append(f"{earlier[-1].run_id} has no checkpoint to go on from: it starts anew")
    return Continuation(name, notes=tuple(notes))


def _bring_home(paths: RunPaths, reach: Connect) -> Iterator[str]:
    """Ends and copies what is left of a run; says which hosts cannot be asked."""
    if not is_trusted(paths) or not (paths.root / DEPLOYMENT_NAME).is_file():
        return
    try:
        run = DetachedRun(paths, reach, Consent(is_given=True))
    except ConfigError as error:
        yield f"{paths.run_id}: {error.what}"
        return
    if run.deployment.is_collected:
        return
    answers = run.end()
    for answer in answers:
        if answer.error is not None:
            yield f"{paths.run_id}: {answer.part.host.name} {answer.problem}"
    if not any(answer.error is not None or answer.is_running for answer in answers):
        run.note_collected()
