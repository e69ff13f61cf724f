"""`policy.json` of an exported policy: what goes in and out, where it comes from, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

import msgspec

from engine import __version__
from engine.export.agreement import TOLERANCE, Agreement
from engine.export.formats import Exported, Format
from engine.export.ports import Port
from engine.export.space_document import SpaceDocument, space_document
from engine.spec import NetworkSpec, Scalar, WrapperValue
from engine.trained.load import Trained

SCHEMA_VERSION = 1
BATCH = "batch"


class PortDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An input or an output."""

    name: str
    kind: str
    """`observation`, `action_mask`, `state`, `action` or `next_state`."""
    dtype: str
    """As NumPy names it."""
    shape: list[int | str]
    """The first axis is that of the batch, of any length."""
    path: list[str]
    """Keys from the whole observation or action to this part of it."""
    space: SpaceDocument | None = None


class EnvironmentDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The environment that it acts in."""

    id: str
    kwargs: dict[str, Scalar]
    wrappers: list[dict[str, WrapperValue]]
    """Around each environment, innermost first; they are not part of the policy."""
    modules: list[str]
    """Of whoever trained it; they register it."""
    observation_space: str
    action_space: str


class TrainingDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Where the weights come from."""

    run_id: str
    version: int
    updates: int
    env_steps: int
    """Consumed by training."""
    elapsed_s: float
    seeds: list[int]
    algorithm: dict[str, Scalar]
    network: NetworkSpec
    return_mean: float | None
    return_measured: str | None
    """How, in words."""
    agent_returns: dict[str, float]
    """Of a team: mean returns of its agents in the evaluation that it is from; otherwise empty."""
    tianji: str | None
    commit: str | None
    dirty: bool | None
    versions: dict[str, str]


class PrecisionDocument(msgspec.Struct, frozen=True, kw_only=True):
    """In what numbers the trunk is computed."""

    trained: str
    exported: str = "float32"
    same_actions: float | None = None
    """Share of recorded observations for which both act alike; null if they are the same."""


class VerifiedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """How it was compared with the policy in TianJi."""

    agreement: Agreement
    tolerance: float
    versions: dict[str, str]
    """Of the packages with which it was."""


class PolicyDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of `policy.json`."""

    schema_version: int = SCHEMA_VERSION
    format: str
    file: str
    inputs: list[PortDocument]
    outputs: list[PortDocument]
    environment: EnvironmentDocument
    training: TrainingDocument
    precision: PrecisionDocument
    verified: VerifiedDocument


class ExportDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What `tianji export --json` prints."""

    schema_version: int = SCHEMA_VERSION
    path: str
    """Of the folder."""
    policy: PolicyDocument


def port_document(port: Port) -> PortDocument:
    """An input or output as programs read it."""
    return PortDocument(
        name=port.name,
        kind=port.kind,
        dtype=port.dtype,
        shape=[BATCH, *port.shape],
        path=list(port.path),
        space=None if port.space is None else space_document(port.space),
    )


def policy_document(
    trained: Trained, chosen: Format, exported: Exported, training: TrainingDocument
) -> PolicyDocument:
    """All of `policy.json`."""
    experiment, ports = trained.experiment, exported.ports
    return PolicyDocument(
        format=chosen.name,
        file=chosen.file,
        inputs=[port_document(port) for port in ports.inputs],
        outputs=[port_document(port) for port in ports.outputs],
        environment=EnvironmentDocument(
            id=experiment.env.id,
            kwargs=experiment.env.kwargs,
            wrappers=list(experiment.env.wrappers),
            modules=list(experiment.modules),
            observation_space=str(trained.observation_space),
            action_space=str(trained.action_space),
        ),
        training=training,
        precision=PrecisionDocument(
            trained=experiment.network.precision, same_actions=exported.share_of_half
        ),
        verified=VerifiedDocument(
            agreement=exported.agreement,
            tolerance=TOLERANCE,
            versions={
                "tianji": __version__,
                **versions_of((*chosen.runs_with, *chosen.needs)),
            },
        ),
    )


def versions_of(distributions: Sequence[str]) -> dict[str, str]:
    """Installed versions, as package indices know them: without `+cpu` and the like."""
    return {name: metadata.version(name).partition("+")[0] for name in sorted({*distributions})}
