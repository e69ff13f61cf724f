"""Finds what `up --resume RUN` resumes: the newest complete checkpoint of a run that has ended.

The resumed run is a new one. The old directory does not change and keeps its traces, including
those after the checkpoint; the new manifest names the old run, and its counters continue.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from engine.errors import ConfigError, TianJiError
from engine.messages import role_of
from engine.progress import Resumed, RunCounters, steps_left
from engine.spec import Experiment
from engine.trace.checkpoint_choice import GROUPS, choose_checkpoint, group_of
from engine.trace.checkpoint_file import CheckpointInfo, check_identity, is_identity
from engine.trace.records import SCHEMA_VERSION
from engine.trace.replay_file import REPLAYS, ReplayInfo, replay_directory, verify_replay
from engine.wording import plural
from tianji_cli.config.inventory import Inventory, check_host
from tianji_cli.connectors.base import Node
from tianji_cli.provisioning.shipping import make_directories
from tianji_cli.runs.detached import DetachedRun
from tianji_cli.runs.manifest import DECIDING
from tianji_cli.storage.consent import NOBODY, Consent, words_of_host
from tianji_cli.storage.deployment import DEPLOYMENT_NAME, is_of_slurm
from tianji_cli.storage.json_files import decode, read_document
from tianji_cli.storage.ownership import checksum_of
from tianji_cli.storage.run_dir import RunPaths, command_for, resolve_run

UNTRAINED = "v0000000000.json"
"""A checkpoint of a run's initial weights."""


class _Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a manifest that a resumed run needs."""

    schema_version: int = 0
    experiment: Experiment
    inventory: Inventory


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to resume from.

    Attributes:
        paths: The run that wrote it.
        experiment, inventory: Of that run.
        directory: Where the checkpoint's files are.
        info: The checkpoint.
        notes: What the user should know about how it was found.
        replays: Saved replay stores that the run goes on with, by number of their buffer.
    """

    paths: RunPaths
    experiment: Experiment
    inventory: Inventory
    directory: Path
    info: CheckpointInfo
    notes: tuple[str, ...]
    replays: Mapping[int, ReplayInfo] = field(default_factory=dict)

    def with_replays(self, experiment: Experiment) -> ResumePoint:
        """The newest checkpoint with which the replay store was saved, if that is wanted.

        If there is none, the store of the resumed run is filled again.
        """
        if not experiment.checkpoint.replay or self.info.buffer.get("kind") != "replay":
            return self
        checkpoints, found = self.paths.checkpoints, {}

        def verify_store(path: Path) -> None:
            group = group_of(path)
            found[group] = verify_replay(replay_directory(checkpoints, group) / path.name)

        try:
            chosen = choose_checkpoint(checkpoints, "last", verify_store)
        except ConfigError:
            note = f"{self.paths.run_id} has no checkpoint with a complete replay store"
            return replace(self, notes=(*self.notes, note))
        group = group_of(chosen.path)
        replays = {group: found[group], **_newest_replays(checkpoints, but=group)}
        notes = (f"not used: {text}" for text in chosen.refused)
        return replace(
            self,
            directory=chosen.path.parent,
            info=chosen.info,
            notes=tuple(dict.fromkeys((*self.notes, *notes))),
            replays=replays,
        )

    @property
    def resumed(self) -> Resumed:
        """For the resumed run: what was in flight when the checkpoint was written is lost."""
        counters = self.counters
        lost = counters.env_steps_collected - counters.env_steps_consumed
        return Resumed(
            run_id=self.paths.run_id,
            checkpoint=self.info.name,
            version=self.info.version,
            updates=self.info.updates,
            counters=msgspec.structs.replace(counters, env_steps_dropped=lost),
            resumes=self.info.resumes + 1,
            replays={buffer: info.version for buffer, info in self.replays.items()},
        )

    @property
    def counters(self) -> RunCounters:
        """At the checkpoint. A saved store knows best how many env steps were put into it."""
        counters = self.info.counters
        counts = [info.env_steps_consumed for info in self.replays.values()]
        consumed = max(filter(None, counts), default=0) if len(counts) == 1 else 0
        consumed = max(counters.env_steps_consumed, consumed)
        collected = max(counters.env_steps_collected, consumed + counters.env_steps_dropped)
        return msgspec.structs.replace(
            counters, env_steps_consumed=consumed, env_steps_collected=collected
        )

    def check(self, experiment: Experiment) -> None:
        """Checks that this experiment can resume from here.

        Raises:
            ConfigError: It differs, or its stop rule is reached already.
        """
        check_identity(experiment, self.info)
        here, there = (one.env.num_envs for one in (experiment, self.experiment))
        if self.replays and here != there:
            raise ConfigError(
                f"{here} here, but rollouts of the saved replay store have {there}",
                where="env.num_envs",
                fix="leave it as it was, or fill the store again: -s checkpoint.replay=false",
            )
        stop, counters = experiment.stop, self.counters
        left = steps_left(stop.env_steps, self.resumed)
        if left is not None and left <= 0:
            raise ConfigError(
                f"the run has consumed {counters.env_steps_consumed:,} of"
                f" {plural(stop.env_steps or 0, 'env step')} already",
                where="stop.env_steps",
                fix=f"-s stop.env_steps={2 * counters.env_steps_consumed}",
            )
        if stop.seconds is not None and counters.elapsed_s >= stop.seconds:
            raise ConfigError(
                f"the run has trained for {counters.elapsed_s:.0f} of {stop.seconds:g} s already",
                where="stop.seconds",
                fix=f"-s stop.seconds={2 * counters.elapsed_s:.0f}",
            )

    def advised(self, error: TianJiError) -> TianJiError:
        """The same error, without the advice to change what this run must keep."""
        if not is_identity(error.where):
            return error
        fix = (
            f"a resumed run keeps its {error.where}: change what does not fit it (hosts, policy,"
            " actors, groups and env.num_envs can change), or start a new run"
        )
        return type(error)(error.what, where=error.where, fix=fix)

    def words(self) -> list[str]:
        """Messages about what is restored and what is not, one per line."""
        info, counters = self.info, self.counters
        is_replay = info.buffer.get("kind") == "replay"
        network = "network, target network" if is_replay else "network"
        anew = "environments, their random numbers, the window of returns"
        if self.replays:
            stored = sum(self._env_steps_of(store) for store in self.replays.values())
            network = f"replay store ({plural(stored, 'env step')}), {network}"
        elif is_replay:
            anew += (
                f"; the replay store is filled again ({info.buffer['min_size']} env steps first)"
            )
        return [
            *self.notes,
            f"resumes {self.paths.run_id} from version {info.version}:"
            f" {plural(counters.env_steps_consumed, 'env step')} consumed,"
            f" {plural(info.updates, 'update')},"
            f" {counters.elapsed_s:.1f} s of training",
            f"restored: {network}, optimiser (hence all schedules), the learner's random"
            " numbers, counters",
            f"started afresh: {anew}",
        ]

    def _env_steps_of(self, store: ReplayInfo) -> int:
        most = int(str(self.info.buffer.get("capacity", 0)))
        return min(store.limiter.inserted, most)

    def copy_to(self, paths: RunPaths) -> None:
        """Copies the checkpoint into the new run, which then no longer needs the old one.

        Files of saved replay stores never change, so on one file system they get a second name.

        Raises:
            OSError: It cannot be written.
        """
        for name in (self.info.tensors_name, self.info.name):
            shutil.copyfile(self.directory / name, paths.checkpoints / name)
        for buffer, info in self.replays.items():
            source = replay_directory(self.paths.checkpoints, buffer)
            target = replay_directory(paths.checkpoints, buffer)
            target.mkdir()
            for name in (*info.sizes, info.name):
                _link_or_copy(source / name, target / name)

    def ship(self, node: Node, run_dir: str, roles: Collection[str]) -> None:
        """Copies the checkpoint, and the replay stores of these roles, to their host.

        Raises:
            HostUnreachableError: The host cannot be reached.
            PreflightError: It refuses.
        """
        if any(role_of(role) != "buffer" for role in roles):
            for name in (self.info.tensors_name, self.info.name):
                node.put(f"{run_dir}/checkpoints/{name}", (self.directory / name).read_bytes())
        for buffer, info in self.replays.items():
            if f"buffer-{buffer}" in roles:
                source = replay_directory(self.paths.checkpoints, buffer)
                target = f"{run_dir}/checkpoints/{source.name}"
                make_directories(node, [target])
                for name in (*info.sizes, info.name):
                    node.put(f"{target}/{name}", (source / name).read_bytes())


def find_resume_point(results: Path, name: str, consent: Consent = NOBODY) -> ResumePoint:
    """The newest complete checkpoint of a run.

    Args:
        results: The results directory.
        name: A run's id, a unique prefix of one, or its path.
        consent: Asked before using anything of a run that was not started here.

    Raises:
        ConfigError: There is no such run, it still runs, has no complete checkpoint here, or the
            user does not agree.
    """
    paths = resolve_run(results, name)
    recorded = _read_recorded(paths, consent)
    notes = _refuse_running(paths, consent)
    try:
        chosen = choose_checkpoint(paths.checkpoints, "last")
    except ConfigError as error:
        raise ConfigError(
            f"it has no checkpoint to resume from: {error.what}{_lines(notes)}",
            where=error.where,
            fix="start a new run; checkpoint.every_s sets how often one is written",
        ) from error
    notes += [
        f"incomplete or damaged, so the previous one is used: {text}" for text in chosen.refused
    ]
    return ResumePoint(
        paths,
        recorded.experiment,
        recorded.inventory,
        chosen.path.parent,
        chosen.info,
        tuple(notes),
    )


def resume_hint(paths: RunPaths) -> str:
    """The command that resumes a run; empty if it has no trained checkpoint."""
    patterns = ("v*.json", f"{GROUPS}/v*.json")
    found = [path for pattern in patterns for path in paths.checkpoints.glob(pattern)]
    if all(path.name == UNTRAINED for path in found):
        return ""
    option = "--slurm " if is_of_slurm(paths.root) else ""
    return command_for(f"up {option}--resume", paths.root)


def _read_recorded(paths: RunPaths, consent: Consent) -> _Recorded:
    """Experiment and inventory of a run: modules that would be imported, hosts that would be used.

    Raises:
        ConfigError: The manifest cannot be used, or the user does not agree.
    """
    data, where = read_document(paths.manifest), str(paths.manifest)
    recorded = decode(data, _Recorded, SCHEMA_VERSION, "a run", where)
    for host in recorded.inventory.hosts:
        check_host(host, where)
    experiment = recorded.experiment
    words = [
        f"experiment {experiment.name}: {experiment.algorithm_name} on {experiment.env.id},"
        f" policy {experiment.policy}",
        *map(words_of_host, recorded.inventory.hosts),
    ]
    consent.need(checksum_of(data, only=DECIDING), "run", where, words)
    return recorded


def _refuse_running(paths: RunPaths, consent: Consent) -> list[str]:
    """Raises ConfigError if the run still runs somewhere; returns notes on silent hosts."""
    if not (paths.root / DEPLOYMENT_NAME).is_file():
        return []  # it was one process, the command's own
    run = DetachedRun(paths, consent=consent)
    if run.deployment.is_collected:
        return []
    notes: list[str] = []
    for answer in run.look(collects=False):
        host = answer.part.host
        if answer.is_running:
            raise ConfigError(
                f"it still runs on {host.name}",
                where=paths.run_id,
                fix=command_for("down", paths.root),
            )
        if answer.error is not None:
            notes.append(f"{host.name} cannot be asked for newer checkpoints: {answer.error.what}")
        elif host.connection != "local" and answer.findings and answer.findings.state:
            raise ConfigError(
                f"files of it are still on {host.name}",
                where=paths.run_id,
                fix=f"{command_for('down', paths.root)} brings them here",
            )
    return notes


def _newest_replays(checkpoints: Path, but: int) -> dict[int, ReplayInfo]:
    """Of each other buffer, the newest complete store: learners of other groups write checkpoints
    at other versions, and all groups resume from one of them."""
    found: dict[int, ReplayInfo] = {}
    for directory in sorted(checkpoints.glob(REPLAYS)):
        number = directory.name.rpartition("-")[2]
        if not number.isdecimal() or int(number) == but:
            continue
        for path in sorted(directory.glob("v*.json"), reverse=True):
            with suppress(ConfigError):
                found[int(number)] = verify_replay(path)
                break
    return found


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target)


def _lines(notes: list[str]) -> str:
    return "".join(f"\n    {text}" for text in notes)
