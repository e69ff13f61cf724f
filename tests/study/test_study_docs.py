"""`docs/studies.md` names every key of a search and every field of a study's figures."""

from __future__ import annotations

import re

import msgspec
import pytest

from tests.helpers.paths import REPOSITORY
from tianji_cli.bench.search.spec import CategoricalRange, FloatRange, IntRange, Search
from tianji_cli.bench.study.compare import StudyComparison, TaskResult, VariantResult
from tianji_cli.bench.study.records import CellReturns, StudyManifest, StudyRun
from tianji_cli.bench.study.trials import SearchResult, TrialResult

PAGE = (REPOSITORY / "docs/studies.md").read_text(encoding="utf-8")
EVERYWHERE = {"schema_version", "bench_id", "study_id", "machine_id", "detail", "warnings", "tasks"}
"""Of all benchmarks' documents."""


@pytest.mark.parametrize(
    "struct", [TaskResult, VariantResult, SearchResult, TrialResult, CellReturns, StudyRun]
)
def test_every_field_is_documented(struct: type[msgspec.Struct]):
    named = set(re.findall(r"`([a-z_]+)`", PAGE)) | EVERYWHERE
    assert [
        f.encode_name for f in msgspec.structs.fields(struct) if f.encode_name not in named
    ] == []


def test_what_all_documents_have_is_all_that_is_left_out():
    assert {f.encode_name for f in msgspec.structs.fields(StudyComparison)} <= EVERYWHERE
    assert "inventory" in {f.encode_name for f in msgspec.structs.fields(StudyManifest)}
    assert "`inventory`" in PAGE


@pytest.mark.parametrize("struct", [Search, FloatRange, IntRange, CategoricalRange])
def test_every_key_of_a_search_is_in_the_example_or_the_text(struct: type[msgspec.Struct]):
    for field in msgspec.structs.fields(struct):
        assert re.search(rf"(`|\b){field.encode_name}(`|:)", PAGE), field.encode_name
