"""`python -m tests.gpu [--out FILE]`: proves and measures all on one GPU, in at most eight minutes.

Without a GPU it says so and ends with code 0; `--on cpu:0` rehearses it on the processor.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path

import torch

from engine.devices.opening import open_device
from engine.devices.visible import find_devices
from tests.gpu import streams, updates, whole_runs
from tests.gpu.proof import Outcome, Setting, prove

CHECKS = (*updates.CHECKS, *streams.CHECKS, *whole_runs.CHECKS)


def show(outcome: Outcome) -> None:
    figures = ", ".join(f"{value:.4g} {name}" for name, value in outcome.figures.items())
    print(f"{outcome.status:8} {outcome.seconds:6.1f} s  {outcome.name}", flush=True)
    if figures:
        print(f"{'':18}{figures}", flush=True)
    if outcome.error:
        print(f"{'':18}{outcome.error}", flush=True)


def describe(name: str) -> dict[str, object]:
    """The machine, for the file of results."""
    is_cuda = name.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(name) if is_cuda else platform.processor(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if is_cuda else None,
        "python": platform.python_version(),
        "processor": platform.machine(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--on", metavar="DEVICE", help="instead of the first GPU: cpu:0")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all figures there, as JSON")
    parser.add_argument("--scale", type=float, default=1.0, help="length of measurements")
    options = parser.parse_args()
    name = options.on or next(iter(find_devices()), None)
    if name is None:
        print("skipped: PyTorch finds no GPU here, so nothing was proved (--on cpu:0 rehearses it)")
        return 0
    device = open_device(name)
    if device is None:
        parser.error("cpu is no device; cpu:0 is the processor by way of one")
    found: list[dict[str, object]] = []

    def keep(outcome: Outcome) -> None:
        found.append(outcome.as_row())
        show(outcome)

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as roles do
    print(json.dumps(describe(name)), flush=True)
    with tempfile.TemporaryDirectory(prefix="tianji-gpu-") as directory:
        setting = Setting(name, device, Path(directory), not name.startswith("cuda"), options.scale)
        is_proven = prove(CHECKS, setting, keep)
    torch.set_num_threads(num_threads)
    if options.out is not None:
        record = {"machine": describe(name), "checks": found}
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("proved" if is_proven else "NOT proved", flush=True)
    return 0 if is_proven else 1


if __name__ == "__main__":
    sys.exit(main())
