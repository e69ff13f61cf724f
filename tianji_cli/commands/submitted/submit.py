"""`tianji up --slurm --submit`: gives the run to Slurm as a batch job, and returns."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from engine.errors import ConfigError, PreflightError
from engine.search_path import module_command, own_path
from tianji_cli.commands.run_request import UpRequest, check_files
from tianji_cli.output import Output
from tianji_cli.slurm.batch_script import JobOptions, batch_script
from tianji_cli.slurm.job_record import SubmittedJob, note_own_job, write_job
from tianji_cli.slurm.programs import JobQuery, submit
from tianji_cli.storage.run_dir import (
    RunPaths,
    check_run_id,
    claim_new_run,
    claim_run,
    command_for,
    new_run_id,
    probe_results,
)
from tianji_cli.storage.safe_files import write_file

SCRIPT_NAME = "job.sh"


class SubmittedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `up --slurm --submit --json` prints; no `job` with `--dry-run`."""

    schema_version: int = 1
    run_id: str
    job: str | None
    script: str


def check_submission(request: UpRequest, options: JobOptions, *, submits: bool) -> bool:
    """Whether the request is to be submitted.

    Raises:
        ConfigError: Options of it do not go together.
    """
    if not submits:
        if options != JobOptions():
            raise ConfigError(
                "options of a batch job are given, but the run is not submitted",
                where="up",
                fix="add --slurm --submit, or leave them out",
            )
        return False
    if not request.uses_slurm:
        raise ConfigError(
            "only Slurm takes batch jobs", where="--submit", fix="tianji up --slurm --submit"
        )
    for is_given, option in ((request.detaches, "--detach"), (request.continues, "--continue")):
        if is_given:
            raise ConfigError(
                "a submitted run does that by itself", where=option, fix="leave it out"
            )
    return True


def submit_command(
    request: UpRequest, options: JobOptions, output: Output, *, is_dry: bool = False
) -> int:
    """Submits a run, or shows the batch script.

    Raises:
        ConfigError: Something in the request cannot be used.
        PreflightError: Slurm refuses it, or the results directory cannot be written.
    """
    request = replace(request, results=request.results.absolute())
    experiment = check_files(request, output)
    if is_dry:
        run_id = check_run_id(request.name or new_run_id(experiment.name), "--name")
        script = _script(request, options, request.results / run_id)
        if output.is_json:
            output.document(SubmittedDocument(run_id=run_id, job=None, script=script))
        else:
            output.data.print(script, end="", soft_wrap=True)
        return 0
    probe_results(request.results)
    with _claimed(request, experiment.name) as paths:
        script = _script(request, options, paths.root)
        write_file(paths.root / SCRIPT_NAME, script)
        job = _submitted(paths, script)
    if output.is_json:
        output.document(SubmittedDocument(run_id=paths.run_id, job=job, script=script))
        return 0
    verbs = ", ".join(command_for(verb, paths.root) for verb in ("status", "logs -f", "down"))
    output.say(f"submitted run {paths.run_id} as Slurm job {job}; {verbs}")
    return 0


@contextlib.contextmanager
def _claimed(request: UpRequest, experiment: str) -> Iterator[RunPaths]:
    """Claims the run's name; releases it if the run cannot be submitted."""
    if request.name is None:
        paths = claim_new_run(request.results, experiment)
    else:
        paths = claim_run(request.results, check_run_id(request.name, "--name"))
    try:
        yield paths
    except OSError as error:
        shutil.rmtree(paths.root, ignore_errors=True)
        raise PreflightError(
            f"the run cannot be written: {error.strerror or error}", where=str(paths.root)
        ) from error
    except BaseException:
        shutil.rmtree(paths.root, ignore_errors=True)
        raise


def _submitted(paths: RunPaths, script: str) -> str:
    """Gives the script to Slurm; a job that cannot be recorded is cancelled. Its number."""
    number, cluster = submit(script)
    job = SubmittedJob(run_id=paths.run_id, job=number, cluster=cluster)
    try:
        write_job(paths.root, job)
    except BaseException:
        JobQuery(number, cluster).cancel()
        raise
    note_own_job(job)
    return number


def _script(request: UpRequest, options: JobOptions, root: Path) -> str:
    command = module_command(sys.executable, "tianji_cli", *up_arguments(request, root))
    given, path = os.environ.get("PYTHONPATH"), own_path(os.environ.get("PYTHONPATH"))
    if path and path != given:  # a checkout; the job gets the environment of this command
        command = ["env", f"PYTHONPATH={path}", *command]
    try:
        here = str(Path.cwd())
    except OSError as error:
        raise ConfigError("the working directory is gone", where="this shell") from error
    return batch_script(root.name, here, str(root), options, command)


def up_arguments(request: UpRequest, root: Path) -> list[str]:
    """The arguments of `tianji` in the job, which runs in the directory of the submission."""
    words = ["up", *([request.inventory] if request.inventory else []), "--slurm"]
    valued = {
        "--experiment": request.experiment,
        "--policy": request.policy,
        "--seed": None if request.seed is None else str(request.seed),
        "--resume": request.resume,
        "--results": str(root.parent),
        "--name": root.name,
    }
    repeated = {
        "--set": request.settings,
        "--limit": request.limit,
        "--track": request.trackers,
    }
    words += [f"{option}={value}" for option, value in valued.items() if value is not None]
    words += [f"{option}={value}" for option, values in repeated.items() for value in values]
    words += ["--trust"] if request.trusts else []
    words += ["--profile"] if request.profiles else []
    return [*words, "--continue"]
