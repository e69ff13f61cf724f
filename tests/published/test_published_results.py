"""The committed reproduction: its figures are rebuilt from its two files, on any machine."""

from __future__ import annotations

import json

import msgspec

from tests.helpers.paths import REPOSITORY
from tianji_cli.bench.published.compare import compare_published
from tianji_cli.bench.published.records import PublishedFiles
from tianji_cli.render.bench.published_page import PublishedPage, render_published_markdown

KEPT = PublishedFiles(REPOSITORY / "results/published")


def test_the_committed_results_say_what_they_said():
    manifest = KEPT.read_manifest()
    runs = KEPT.read_results(manifest)
    found = compare_published(manifest, runs)
    assert json.loads(KEPT.comparison.read_bytes()) == json.loads(msgspec.json.encode(found))
    page = render_published_markdown(
        PublishedPage(manifest, found, [*runs.values()], ()), KEPT.root
    )
    text = KEPT.readme.read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("!["))
    assert [line for line in lines if line] == [line for line in page.splitlines() if line]
    assert all(row.verdict is not None for row in found.rows)
