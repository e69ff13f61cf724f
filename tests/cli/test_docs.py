"""The documentation is true: its commands run, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY
from tests.helpers.running import EAGER
from tianji_cli.reference.page import anchor

ROOT = REPOSITORY
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "experiments").rglob("*.md")),
    ROOT / "results/README.md",
    *sorted((ROOT / "results/reference").glob("**/README.md")),
]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def readable_parts(page: Path) -> list[str]:
    """What is followed from its first line to its last: a section of the README, or a page."""
    text = page.read_text()
    parts = text.split("\n## ") if page == ROOT / "README.md" else [text]
    return [part for part in parts if console_commands(part)]


def console_commands(text: str) -> list[str]:
    """Lines `$ tianji ...` of all ```console blocks, in order."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [
        line.removeprefix("$ ")
        for block in blocks
        for line in block.splitlines()
        if line.startswith("$ tianji ")
    ]


def python_session(text: str) -> str:
    """All ```pycon blocks, for doctest."""
    return "\n".join(re.findall(r"```pycon\n(.*?)```", text, re.DOTALL))


PARTS = {
    f"{name_of(page)}-{number}": part
    for page in PAGES
    for number, part in enumerate(readable_parts(page))
}


LITTLE = {
    "evaluate": ["--episodes", "4"],
    "play": ["--max-steps", "20"],
}
"""By command: words that leave it less to do, and change nothing of what a reader types."""


def halved(number: re.Match[str]) -> str:
    return str(int(number[0]) // 2)


def shortened(words: list[str]) -> list[str]:
    words = [re.sub(r"(?<=^stop\.env_steps=)\d+$", halved, word) for word in words]
    if words[0] == "up":
        is_short = any(word.startswith("stop.") for word in words)
        return [*words, *EAGER, *([] if is_short else ["-s", "stop.env_steps=2000"])]
    return [*words, *LITTLE.get(words[0], [])]


@pytest.mark.processes
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_documented_commands_run(part, tmp_path):
    """In one directory and in order, as a reader would; `# exit N` states another code than 0.

    Then the lines of Python, which must give what the page says. Runs are kept short.
    """
    for command in console_commands(part):
        line, _, expected = command.partition("  # exit ")
        words = shlex.split(line)[1:]
        if expected == "":
            words = shortened(words)
        result = subprocess.run(
            [sys.executable, "-m", "tianji_cli.main", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )
        assert result.returncode == int(expected or 0), f"{command}\n{result.stderr}"
    if session := python_session(part):
        (tmp_path / "session.txt").write_text(session)
        command = [sys.executable, "-m", "doctest", "session.txt"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=120)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_into_pages_lead_to_headings(page):
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*\.md|)#([^)]+)\)", page.read_text()):
        text = (page.parent / target if target else page).read_text()
        known = {anchor(line) for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
        assert heading in known, f"{page.name} links to {target}#{heading}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_exist(page):
    for name in re.findall(r"`((?:engine|tianji_cli|tests|docs)/[\w/.-]+\.\w+)`", page.read_text()):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_tests_exist(page):
    for name, test in re.findall(r"`(tests/[\w/.-]+\.py)::(\w+)`", page.read_text()):
        assert (ROOT / name).is_file(), f"{page.name} names {name}"
        assert f"\ndef {test}(" in (ROOT / name).read_text(), f"{page.name} names {name}::{test}"


def test_the_picture_is_that_of_the_reference_result():
    shown = ROOT / "docs/images/ppo-cartpole-learning.png"
    kept = ROOT / "results/reference/cartpole/plots/ppo-3200-learning_over_time.png"
    assert shown.read_bytes() == kept.read_bytes()


def test_every_fault_has_a_test_or_says_that_it_has_none():
    whole = (ROOT / "docs/reliability.md").read_text()
    text, _, others = whole.partition("## Other ways to hosts")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    shown = [row[-2] for row in rows if "shown by" not in row[-2]]
    assert len(shown) >= 27 + 7
    assert all("`tests/" in cell or "Not tested" in cell for cell in shown)
    named = re.findall(r"`(test_[a-z_]+\.py)`", others.partition("## Random faults")[0])
    assert len(named) >= 6
    assert all((ROOT / "tests/lab" / name).is_file() for name in named)


def test_every_statement_about_trust_has_a_test():
    text = (ROOT / "docs/security.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    shown = [row[-2] for row in rows if "shown by" not in row[-2]]
    assert len(shown) >= 25
    assert all("`tests/" in cell for cell in shown)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == [
        "Your own files",
        "Results from elsewhere",
        "Hosts of a run",
        "Other users of a host",
        "Strangers on the network",
        "The live page",
    ]
