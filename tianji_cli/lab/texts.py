"""The text files of a lab: sshd's configuration, known hosts, hosts tables, the inventory. Pure."""

from __future__ import annotations

import json

from tianji_cli.lab.plan import DATA_PORTS, HostPlan, LabPaths, LabPlan

ETC = "etc/tianji-lab"
"""Directory below a host's root with the files that the lab gave it."""

USER = "root"


def sshd_config(host: HostPlan) -> str:
    """Public keys only. All limits are OpenSSH's own, as on real clusters (10 sessions, ...)."""
    lines = (
        f"ListenAddress {host.address}:{host.ssh_port}",
        f"HostKey /{ETC}/ssh_host_ed25519_key",
        f"AuthorizedKeysFile /{ETC}/authorized_keys",
        "PidFile none",
        "UsePAM no",
        "UseDNS no",
        "StrictModes no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "X11Forwarding no",
        "PrintMotd no",
        "Subsystem sftp internal-sftp",
    )
    return "\n".join(lines) + "\n"


def hosts_table(plan: LabPlan) -> str:
    """`/etc/hosts` of every host."""
    rows = [("127.0.0.1", "localhost"), (plan.operator_address, "operator")]
    rows += [(host.address, host.name) for host in plan.hosts]
    return "".join(f"{address} {name}\n" for address, name in rows)


def known_hosts_line(host: HostPlan, public_key: str) -> str:
    """One line for the host's real key.

    Args:
        host: Whose key it is.
        public_key: As ssh-keygen writes it: type, base64, comment.
    """
    kind, data = public_key.split()[:2]
    return f"{host.address},{host.name} {kind} {data}\n"


def inventory(plan: LabPlan, paths: LabPaths) -> str:
    """An inventory of all hosts. JSON strings are YAML strings, whatever a path contains."""
    lines = [
        "# Written by `tianji lab up`; `tianji lab down` removes it.",
        "version: 1",
        "defaults:",
        f"  user: {USER}",
        f"  key: {json.dumps(str(paths.key))}",
        f"  known_hosts: {json.dumps(str(paths.known_hosts))}",
        f"  python: {json.dumps(plan.request.python)}",
        f"  ports: {DATA_PORTS}",
        "hosts:",
    ]
    lines += [
        f"  {host.name}: {{ssh_host: {host.address}, port: {host.ssh_port},"
        f" address: {host.address}}}"
        for host in plan.hosts
    ]
    return "\n".join(lines) + "\n"


def unlock_root(shadow: str) -> str | None:
    """`/etc/shadow` in which sshd lets root in by key, or None if it does so already.

    Without PAM, sshd refuses an account whose password field begins with `!`.

    >>> unlock_root("root:!:1::::::\\nbin:*:1::::::\\n")
    'root:*:1::::::\\nbin:*:1::::::\\n'
    """
    lines = shadow.splitlines(keepends=True)
    for index, line in enumerate(lines):
        name, _, rest = line.partition(":")
        if name == USER and rest.startswith("!"):
            lines[index] = f"{name}:*:{rest.partition(':')[2]}"
            return "".join(lines)
    return None
