"""Writes what lies beside an exported policy: README.md, policy.json, example.py, requirements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.export.agreement import TOLERANCE
from engine.export.formats import Exported, Format
from engine.export.model_source import quoted
from engine.export.ports import Port, Ports
from engine.export.recipe import (
    Recipe,
    action_expression,
    network_words,
    observed_expressions,
    recipe_of,
)
from engine.export.team_recipe import team_action, team_observed, team_recipe_of
from engine.trained.load import Trained
from tianji_cli.render.export.documents import PolicyDocument, TrainingDocument, policy_document
from tianji_cli.render.templating import render_text
from tianji_cli.storage.json_files import write_json
from tianji_cli.storage.safe_files import write_file

FORMAT_WORDS = {
    "onnx": "an ONNX model",
    "torchscript": "a TorchScript module",
    "safetensors": "weights with a program in plain PyTorch (`model.py`)",
}


def title_of(trained: Trained) -> str:
    """One line about a policy."""
    return f"{trained.experiment.env.id} by {trained.experiment.algorithm_name}"


def write_folder(
    directory: Path, trained: Trained, chosen: Format, exported: Exported, told: TrainingDocument
) -> PolicyDocument:
    """Writes all but the policy itself.

    Args:
        directory: Where the policy is.
        trained: It.
        chosen: Its format.
        exported: What was written and found out.
        told: Where it comes from.

    Returns:
        What `policy.json` says.

    Raises:
        OSError: The disk is full or not writable.
    """
    document = policy_document(trained, chosen, exported, told)
    requirements = versions_with(document, chosen.runs_with)
    texts = {
        "README.md": _readme(trained, exported, document, chosen),
        "example.py": _example(exported, document),
        "requirements.txt": "".join(f"{name}=={version}\n" for name, version in requirements),
    }
    for name, text in texts.items():
        write_file(directory / name, text.encode())
    write_json(directory / "policy.json", document)
    return document


def versions_with(document: PolicyDocument, names: Sequence[str]) -> list[tuple[str, str]]:
    """The distributions with which it runs, and their versions."""
    return [(name, document.verified.versions[name]) for name in names]


def _example(exported: Exported, document: PolicyDocument) -> str:
    ports = exported.ports
    return render_text(
        "export/example.py.jinja",
        format=document.format,
        file=f"folder / {quoted(document.file)}",
        observed=_names(ports.observed),
        actions=_names(ports.actions),
        state=ports.state.name if ports.state is not None else "",
        atol=f"{TOLERANCE * max(port.largest_bound for port in ports.actions):.0e}",
    )


def _names(ports: Sequence[Port]) -> str:
    return f"[{', '.join(quoted(port.name) for port in ports)}]"


def _readme(trained: Trained, exported: Exported, document: PolicyDocument, chosen: Format) -> str:
    ports, spec = exported.ports, trained.experiment.env
    recipe, expressions, action = _program(trained, ports)
    state = ports.state
    return render_text(
        "export/README.md.jinja",
        title=title_of(trained),
        document=document,
        training=document.training,
        agreement=document.verified.agreement,
        same_actions=document.precision.same_actions,
        format_words=FORMAT_WORDS[chosen.name],
        kwargs=_assigned(spec.kwargs),
        wrappers="; ".join(
            " ".join(filter(None, (f"`{one['name']}`", _assigned(_without_name(one)))))
            for one in spec.wrappers
        ),
        observation_space=_one_line(document.environment.observation_space),
        action_space=_one_line(document.environment.action_space),
        network=network_words(trained),
        trained_with=_listed(document.training.versions),
        verified_with=_listed(document.verified.versions),
        inputs_table=_table("input", ports.inputs),
        outputs_table=_table("output", ports.outputs),
        state=state.name if state is not None else "",
        state_shape=repr((1, *state.shape)) if state is not None else "",
        has_mask=any(port.kind == "action_mask" for port in ports.inputs),
        recipe=recipe,
        expressions={quoted(name): text for name, text in expressions.items()},
        outputs=_names(ports.outputs),
        action=action,
        kept_steps=exported.kept.num_steps,
    )


def _program(trained: Trained, ports: Ports) -> tuple[Recipe, dict[str, str], str]:
    """How to make the environment, what to give to the policy, and what to give to `env.step`."""
    if trained.spaces.team is not None:
        recipe = team_recipe_of(trained.experiment)
        return recipe, team_observed(trained, ports), team_action(trained, ports)
    recipe = recipe_of(trained.experiment)
    expressions = observed_expressions(trained, ports, is_vector=recipe.is_vector)
    action = action_expression(trained.action_space, ports, is_vector=recipe.is_vector)
    return recipe, expressions, action


def _without_name(wrapper: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in wrapper.items() if key != "name"}


def _assigned(values: Mapping[str, object]) -> str:
    return ", ".join(f"`{key}={value!r}`" for key, value in values.items())


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _one_line(words: str) -> str:
    """Text for a cell of a table; long arrays of bounds are in policy.json."""
    line = " ".join(words.split()).replace("|", "\\|").replace("`", "'")
    return line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 1]}…"


MAX_CHARACTERS = 300


def _table(side: str, ports: Sequence[Port]) -> str:
    lines = [f"| {side} | dtype | shape |", "|---|---|---|"]
    for port in ports:
        shape = ", ".join(["batch", *map(str, port.shape)])
        lines.append(f"| `{_one_line(port.name)}` | {port.dtype} | [{shape}] |")
    return "\n".join(lines)
