"""`tianji export`: a trained policy as a folder that needs nothing of TianJi."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from engine.errors import EXIT_INTERRUPTED, ConfigError
from tianji_cli.commands.options import (
    ResultsOption,
    RunArgument,
    TrustOption,
    optional,
    output_of,
)
from tianji_cli.commands.trained.options import CheckpointOption
from tianji_cli.interrupts import interruptible

if TYPE_CHECKING:
    from engine.export.formats import Format
    from engine.trained.run import TrainedRun
    from tianji_cli.output import Output
    from tianji_cli.render.export.documents import ExportDocument

FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="onnx|torchscript|safetensors",
        help="An ONNX model; a TorchScript module; or weights with a program in plain PyTorch.",
    ),
]
OutOption = Annotated[
    Path | None,
    optional(
        "--out",
        metavar="DIR",
        help="Folder to make. Default: exports/FORMAT-vVERSION in the run's directory.",
    ),
]


@dataclass(frozen=True)
class ExportRequest:
    """What the user typed.

    Attributes:
        run: Name of the run; None means the newest.
        results: Where it is.
        format: A key of `FORMATS`.
        out: The folder; None: in the run's directory.
        checkpoint: See `parse_which`.
        trusts: Whether to use modules that runs of others name.
    """

    run: str | None
    results: Path
    format: str
    out: Path | None
    checkpoint: str
    trusts: bool


def export(
    context: typer.Context,
    run: RunArgument = None,
    format: FormatOption = "onnx",
    out: OutOption = None,
    checkpoint: CheckpointOption = "last",
    trust: TrustOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Write a trained policy as a folder that needs no TianJi, and prove that it acts alike.

    In: observations as the environment returns them. Out: the actions that it takes. Normalisation
    and the scaling of actions are inside; a memory goes in and out. The folder has a card, a
    description for programs, recorded observations, and an example that runs.
    """
    request = ExportRequest(run, results, format, out, checkpoint, trust)
    raise typer.Exit(export_command(request, output_of(context)))


def export_command(request: ExportRequest, output: Output) -> int:
    """Exports, and says where it is.

    Returns:
        0; 130 if it was interrupted.

    Raises:
        TianJiError: It cannot be exported; there is no folder then.
    """
    from engine.host.user_code import restored_process
    from engine.trace.checkpoint_choice import parse_which
    from tianji_cli.runs.trained import find_trained
    from tianji_cli.storage.consent import Consent

    which, consent = parse_which(request.checkpoint), Consent(output, request.trusts)
    run = find_trained(request.results, request.run, which, consent)
    for refused in run.checkpoint.refused:
        output.say(f"incomplete or damaged, so another one is used: {refused}")
    output.part_from_user_code()
    try:
        with restored_process(), interruptible():
            document = _export(run, request)
    except KeyboardInterrupt:
        output.say("interrupted; nothing was exported")
        return EXIT_INTERRUPTED
    _tell(document, output)
    return 0


def _export(run: TrainedRun, request: ExportRequest) -> ExportDocument:
    from engine.host.malloc import reading_libraries

    with reading_libraries():
        from engine.export.formats import export_policy
        from engine.trained.load import load_trained
        from tianji_cli.render.export.documents import ExportDocument
        from tianji_cli.render.export.folder import title_of, write_folder
        from tianji_cli.render.export.provenance import training_of
    chosen = _format(request.format)
    with _place(run, request, chosen) as (place, directory):
        trained = load_trained(run)
        exported = export_policy(trained, chosen, directory, title_of(trained))
        document = write_folder(directory, trained, chosen, exported, training_of(trained))
    return ExportDocument(path=str(place), policy=document)


def _format(name: str) -> Format:
    """The format of this name; raises ConfigError for an unknown one, or what it lacks."""
    from engine.config.config_file import suggest
    from engine.envs.extras import install_command
    from engine.export.formats import FORMATS, lacking

    if name not in FORMATS:
        what = f"unknown format {name!r}"
        raise ConfigError(what, where="--format", fix=suggest(name, FORMATS))
    chosen = FORMATS[name]
    if missing := lacking(chosen):
        raise ConfigError(
            f"{name} needs {', '.join(missing)}",
            where="--format",
            fix=install_command("export", *missing),
        )
    return chosen


@contextmanager
def _place(run: TrainedRun, request: ExportRequest, chosen: Format) -> Iterator[tuple[Path, Path]]:
    """The folder to make, and the directory that becomes it when the block ends."""
    from tianji_cli.storage.json_files import writing
    from tianji_cli.storage.new_folder import new_folder
    from tianji_cli.storage.run_dir import RunPaths
    from tianji_cli.storage.safe_files import check_inside

    place = request.out
    if place is None:
        exports = RunPaths(run.path).exports
        with writing("the folder", run.path):
            check_inside(run.path, exports)
        place = exports / f"{chosen.name}-v{run.checkpoint.info.version}"
    place = place.absolute()  # an environment can change the working directory
    with new_folder(place) as directory:
        yield place, directory


def _tell(document: ExportDocument, output: Output) -> None:
    from tianji_cli import units
    from tianji_cli.storage.run_dir import from_here

    if output.is_json:
        output.document(document)
        return
    agreement = document.policy.verified.agreement
    place = from_here(Path(document.path))
    seen = units.plural(agreement.observations, "observation")
    output.say(f"it acts as the policy in TianJi does on {seen}")
    if (share := document.policy.precision.same_actions) is not None:
        output.say(
            f"note: trained in bfloat16, exported in float32; {share:.1%} of the actions are equal"
        )
    output.data.print(Text(f"exported: {place}"), soft_wrap=True)
    output.say(f"try it: python {place / 'example.py'}")
