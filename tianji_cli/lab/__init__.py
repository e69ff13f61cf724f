"""A throw-away cluster of real sshd hosts on one Linux machine, for tests and trials.

Pure planning (quantities, plan, network, texts) apart from effects (system, processes, cgroups,
hosts, build, teardown); `Lab` holds them together.
"""

from __future__ import annotations

from tianji_cli.lab.lab import Lab

__all__ = ["Lab"]
