"""iperf3 over TCP, one stream for each sender, writes of the message's size; no message borders."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tianji_cli.bench.transport.programs.harness import read_job, write_points
from tianji_cli.bench.transport.programs.workers import die_with_parent

PORT = 5201
MIN_S = 1.0
PATIENCE_S = 60.0


def measure(job: dict[str, Any], size_bytes: int) -> dict[str, Any]:
    """Asks a server, which serves once, to receive for a while; counts what it has received."""
    address = job["options"].get("address", "127.0.0.1")
    port = job["options"].get("port", PORT)
    duration_s = max(MIN_S, float(job["measure_s"]))
    words = ["-P", str(job["senders"]), "-l", str(size_bytes), "-t", f"{duration_s:.0f}"]
    done = subprocess.run(
        ["iperf3", "-c", address, "-p", str(port), "-J", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    document = json.loads(done.stdout)
    if "error" in document:
        raise RuntimeError(document["error"])
    received = document["end"]["sum_received"]
    return {
        "size_bytes": size_bytes,
        "messages": received["bytes"] // size_bytes,
        "seconds": received["seconds"],
        "latencies_s": [],
    }


def start_server(address: str, port: int) -> subprocess.Popen[bytes]:
    """Starts a server that listens."""
    words = ["iperf3", "-s", "-B", address, "-p", str(port), "--forceflush"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, preexec_fn=die_with_parent)
    assert server.stdout is not None
    while b"listening" not in server.stdout.readline():
        if server.poll() is not None:
            sys.exit(f"the server of iperf3 ended with status {server.returncode}")
    return server


def play() -> None:
    """`JOB` measures, with a server of its own where no address is given; `JOB serve` is a server
    until it is told to end, or its standard input ends."""
    job = read_job()
    options = job["options"]
    if sys.argv[2:] == ["serve"]:
        server = start_server(options["address"], options["port"])
        print("listening", flush=True)
        server.wait()
        return
    own = None if "address" in options else start_server("127.0.0.1", PORT)
    try:
        points = [measure(job, size) for size in job["sizes_bytes"]]
    finally:
        if own is not None:
            own.terminate()
            own.wait()
    write_points(job, points)


if __name__ == "__main__":
    play()
