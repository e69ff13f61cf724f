"""Configuration of the Slurm that tests start: no systemd, no cgroups, no accounting. Pure."""

from __future__ import annotations

from collections.abc import Mapping

CPUS_PER_NODE = 2
GPUS_PER_NODE = 2
KILL_WAIT_S = 10
SLURMD_TIMEOUT_S = 20
"""A node that is silent for this long is down."""

CGROUP_CONF = "CgroupPlugin=cgroup/v1\n"
"""slurmd 22.05 loads a plugin always; this one needs nothing mounted as long as nobody uses it."""
GRES_CONF = f"Name=gpu File=/var/lib/slurm/gpu[0-{GPUS_PER_NODE - 1}]\n"

NODE_UP = f"""
set -eu
install -d -o munge -g munge -m 755 /run/munge
install -d -o munge -g munge -m 700 /var/lib/munge /var/log/munge /etc/munge
chown munge: /etc/munge/munge.key
chmod 400 /etc/munge/munge.key
install -d -m 755 /var/lib/slurm/slurmctld /var/lib/slurm/slurmd
for i in $(seq 0 {GPUS_PER_NODE - 1}); do
  [ -e /var/lib/slurm/gpu$i ] || mknod /var/lib/slurm/gpu$i c 1 3
done
pgrep -x munged >/dev/null || runuser -u munge -- munged
munge -n | unmunge >/dev/null
if [ "$1" = controller ]; then pgrep -x slurmctld >/dev/null || slurmctld; fi
pgrep -x slurmd >/dev/null || slurmd
"""
"""Starts the daemons of one node; those that run already are left alone."""


def slurm_conf(addresses: Mapping[str, str]) -> str:
    """`slurm.conf` of nodes of two CPUs and two stand-ins for GPUs; the first has the controller.

    Jobs of the partition `urgent` preempt those of `main`, which are requeued.

    Args:
        addresses: Of each node, by name.
    """
    first = next(iter(addresses))
    lines = [
        "ClusterName=lab",
        f"SlurmctldHost={first}({addresses[first]})",
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        "SrunPortRange=60001-60999",
        "StateSaveLocation=/var/lib/slurm/slurmctld",
        "SlurmdSpoolDir=/var/lib/slurm/slurmd",
        "SlurmctldPidFile=/run/slurmctld.pid",
        "SlurmdPidFile=/run/slurmd.pid",
        "SlurmctldLogFile=/var/log/slurmctld.log",
        "SlurmdLogFile=/var/log/slurmd.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/affinity",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "MpiDefault=none",
        "MailProg=/bin/true",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "SlurmdParameters=config_overrides",
        "GresTypes=gpu",
        "ReturnToService=2",
        f"SlurmdTimeout={SLURMD_TIMEOUT_S}",
        f"KillWait={KILL_WAIT_S}",
        "InactiveLimit=0",
        "JobRequeue=1",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "SchedulerParameters=bf_interval=2,sched_interval=2",
    ]
    lines += [
        f"NodeName={name} NodeAddr={address} CPUs={CPUS_PER_NODE} RealMemory=8000"
        f" Gres=gpu:{GPUS_PER_NODE} State=UNKNOWN"
        for name, address in addresses.items()
    ]
    shared = "Nodes=ALL MaxTime=INFINITE State=UP OverSubscribe=NO"
    lines += [
        f"PartitionName=main Default=YES PriorityTier=1 {shared}",
        f"PartitionName=urgent PriorityTier=2 {shared}",
    ]
    return "\n".join(lines) + "\n"
