"""Pages come from templates, and nothing that a page is given becomes markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from tianji_cli import render as package
from tianji_cli.render.templating import _TEMPLATES, link, render

PACKAGE = Path(package.__file__).parent
TEMPLATES = sorted((PACKAGE / "templates").glob("*.html"))
HOSTILE = "<script>alert('x')</script>\n  & \"quoted\""


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_goes_around_the_escaping(path: Path):
    text = path.read_text()
    _TEMPLATES.get_template(path.name)
    assert not re.search(r"\|\s*safe|autoescape|<script", text)


def test_only_drawings_are_taken_for_markup():
    users = {path.name for path in PACKAGE.rglob("*.py") if "Markup(" in path.read_text()}
    assert users == {"svg.py"}


def study(**changes: object) -> str:
    values: dict[str, object] = dict.fromkeys(
        ("notes", "results", "sentences", "figures", "runs", "facts", "headings", "run_headings"),
        (),
    )
    words = {"title": "t", "heading": "h", "soft": "s", "meaning": "m"}
    return render("study.html", **{**values, **words, **changes})


def test_what_a_page_is_given_is_escaped_and_keeps_its_lines():
    page = study(soft=HOSTILE, notes=[HOSTILE], facts=[("fact", HOSTILE)], title=HOSTILE)
    escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;\n  &amp; &#34;quoted&#34;"
    assert page.count(escaped) == 4
    assert "<script" not in page


def test_a_template_adds_no_space_of_its_own():
    page = study()
    body = page[page.index("</style>") :]
    assert body.count("\n") == 1
    assert "  " not in body
    assert page.startswith('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">')
    assert page.endswith("</footer></body></html>\n")


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(UndefinedError, match="title"):
        render("study.html")


def test_a_link_is_relative_and_safe_in_an_attribute(tmp_path: Path):
    assert link(tmp_path / "a" / "b \"'<&.png", tmp_path / "c") == "../a/b%20%22%27%3C%26.png"
