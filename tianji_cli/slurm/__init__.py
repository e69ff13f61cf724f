"""Slurm as its users see it: the allocation of a job, and the hosts of a run that it makes."""
