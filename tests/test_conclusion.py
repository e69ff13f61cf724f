"""The end of `up`: what it says of a run whose summary cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_run import write_synthetic_run

from engine.errors import CleanupError, RunFailedError
from tianji_cli.conclusion import conclude
from tianji_cli.output import Output
from tianji_cli.watch import Outcome


@pytest.mark.parametrize("summary", [b'{"run_id": "cut', b'{"schema_version": 99}', b"\xff"])
def test_a_summary_that_cannot_be_read_is_one_error_and_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], summary: bytes
):
    paths = write_synthetic_run(tmp_path / "r")
    paths.summary.write_bytes(summary)
    left = Outcome(unclean=CleanupError("2 processes may be left"))
    with pytest.raises(RunFailedError, match="summary") as caught:
        conclude(paths, left, was_interrupted=False, output=Output(verbosity=-1))
    assert caught.value.where == str(paths.summary)
    assert "tianji report r" in caught.value.fix
    assert "2 processes may be left" in capsys.readouterr().err
