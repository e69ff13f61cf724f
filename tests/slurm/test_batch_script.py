"""The batch script of a submitted run, and what users may ask Slurm for in it."""

from __future__ import annotations

import subprocess

import pytest

from engine.errors import ConfigError
from tianji_cli.slurm.batch_script import JobOptions, batch_script, check_option, warning_of

COMMAND = ["python", "-c", "import os, sys; print(sys.argv[1:], os.getcwd())", "it's", "$HOME"]


def script_of(options: JobOptions, directory: str = "/home/me/work", root: str = "/r/run") -> str:
    return batch_script("run", directory, root, options, COMMAND)


def directives(script: str) -> list[str]:
    return [
        line.removeprefix("#SBATCH --")
        for line in script.splitlines()
        if line.startswith("#SBATCH --")
    ]


def test_the_script_asks_for_what_the_user_wants_and_what_a_run_needs():
    options = JobOptions(
        nodes="4",
        time="2:00:00",
        partition="gpu",
        account="lab",
        gpus_per_node="a100:2",
        cpus_per_task=8,
        others=("constraint=ib&fast", "exclusive"),
    )
    asked = directives(script_of(options))
    for wanted in (
        *("nodes=4", "time=2:00:00", "partition=gpu", "account=lab", "gpus-per-node=a100:2"),
        *("cpus-per-task=8", 'constraint="ib&fast"', "exclusive", "signal=B:INT@120"),
        *("requeue", "ntasks-per-node=1", "export=ALL", "chdir=/home/me/work"),
    ):
        assert wanted in asked
    assert asked.index('constraint="ib&fast"') > asked.index("signal=B:INT@120"), (
        "the last one wins"
    )


def test_what_is_not_asked_for_is_left_to_slurm():
    names = [line.partition("=")[0] for line in directives(script_of(JobOptions()))]
    assert not {"nodes", "time", "partition", "account", "gpus-per-node"} & set(names)


def test_it_becomes_the_command_in_a_log_of_the_run(tmp_path):
    """Also where no directory of the results exists, as on a disk that is not shared."""
    root = tmp_path / "re sults" / "run"
    script = script_of(JobOptions(), directory=f"{tmp_path}/a b", root=str(root))
    assert f'chdir="{tmp_path}/a b"' in directives(script)
    (tmp_path / "job.sh").write_text(script)
    for _ in range(2):
        subprocess.run(["bash", "job.sh"], check=True, cwd=tmp_path)
    said = f"[\"it's\", '$HOME'] {tmp_path}\n"
    assert (root / "job.log").read_text() == 2 * said, "a job that starts again appends"


@pytest.mark.parametrize(
    "option",
    ["", "a b", "Constraint=x", "comment=a\n#SBATCH --wrap=rm", "array=1-3", "output=x", "wrap=ls"],
)
def test_what_is_no_option_or_not_the_users_is_refused(option):
    with pytest.raises(ConfigError, match=r"option|cannot be set"):
        check_option(option, "--sbatch")


def test_a_value_cannot_add_a_line_to_the_script():
    with pytest.raises(ConfigError, match="no option"):
        script_of(JobOptions(partition="main\n#SBATCH --wrap=rm"))


@pytest.mark.parametrize(
    ("time", "warning_s"),
    [("1", 0), ("4:59", 0), ("5", 30), ("20", 120), ("1-0", 120), (None, 60), ("INFINITE", 60)],
)
def test_a_run_is_warned_before_its_limit_but_never_at_its_start(time, warning_s):
    assert warning_of(time) == warning_s
