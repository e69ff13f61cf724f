"""The Slurm of the tests is a real one: jobs, steps, GPUs, a node that fails and comes back."""

from __future__ import annotations

import pytest

from tests.helpers.slurm_kit import SlurmKit

pytestmark = pytest.mark.lab


def test_a_step_runs_on_every_node_and_sees_the_gpus_of_its_job(slurm: SlurmKit) -> None:
    script = (
        "srun --export=ALL sh -c 'echo \"$(hostname) $SLURM_CPUS_ON_NODE $CUDA_VISIBLE_DEVICES\"'"
    )
    job = slurm.submit(script, "--nodes=4", "--gpus-per-node=1")
    assert job.wait(30) == "COMPLETED", job.said
    assert sorted(job.said.split("\n")[:-1]) == [f"{host} 1 0" for host in slurm.hosts]
