"""Asks a cluster for its releases with given credentials; as a program, as a stranger without any.

    python -P -m tianji_cli.connectors.ray_cluster.visiting ADDRESS

prints the answer as JSON. It is another process, since Ray reads credentials only once.
"""

from __future__ import annotations

import sys

import msgspec
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError

from engine.host.process import flush_output
from tianji_cli.connectors.ray_cluster.identity import Visit

ANSWER_S = 5


def visit(address: str) -> Visit:
    """What the cluster answers.

    Raises:
        Exception: As Ray raises it: there is none, or it is too slow.
    """
    try:
        client = GcsClient(address=address)
        data = client.internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=ANSWER_S)
    except AuthenticationError:
        return Visit(is_refused=True)
    found = msgspec.json.decode(data, type=dict[str, object])
    return Visit(
        is_refused=False,
        ray_version=str(found["ray_version"]),
        python_version=str(found["python_version"]),
    )


def main() -> None:
    """See the module's first lines."""
    sys.stdout.buffer.write(msgspec.json.encode(visit(sys.argv[1])))
    flush_output()


if __name__ == "__main__":
    main()
