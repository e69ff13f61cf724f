"""The benchmark of gradients between hosts, beside gloo."""

from __future__ import annotations

import pytest

from tianji_cli.bench.transport.programs.all_reduce import main


@pytest.mark.slow
def test_a_row_for_votes_and_one_for_each_size(capfd: pytest.CaptureFixture[str]) -> None:
    main(["--ranks", "3", "--megabytes", "1", "--repeats", "2"])
    heading, *rows = capfd.readouterr().out.splitlines()
    assert heading.split()[:2] == ["learners", "vector"]
    assert [row.split()[:2] for row in rows] == [["3", "vote"], ["3", "1"]]
    assert all(float(row.split()[-1]) > 0 for row in rows)
