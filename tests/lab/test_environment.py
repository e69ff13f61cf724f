"""What a real host runs with: environments made over SSH, and versions that do not go together."""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import engine
from engine import REQUIREMENTS
from tests.helpers.ssh_kit import SHORT, Bench, other_python
from tianji_cli.provisioning.bundle import pinned_constraints

pytestmark = pytest.mark.lab
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
WHEELS = "/root/wheels"


def base_interpreter() -> str:
    """The Python below this virtual environment, which knows none of its packages."""
    path = str(Path(sys.base_prefix) / "bin" / f"python{MINOR}")
    wanted = f"import importlib.util as u; print(sum(map(bool, map(u.find_spec, {REQUIREMENTS}))))"
    done = subprocess.run([path, "-c", wanted], capture_output=True, text=True, check=False)
    if done.returncode or int(done.stdout) == len(REQUIREMENTS):
        pytest.skip(f"there is no Python {MINOR} that lacks packages below this environment")
    return path


def make_wheel(name: str, version: str) -> tuple[str, bytes]:
    """A package of this name and version that borrows its content from this interpreter.

    So that pip installs, resolves and pins for real without gigabytes of downloads.
    """
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    files = {
        f"borrowed_{name.replace('-', '_')}.pth": sysconfig.get_paths()["purelib"] + "\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    csv.writer(record).writerows([[path, "", ""] for path in (*files, f"{info}/RECORD")])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record.getvalue()}.items():
            wheel.writestr(path, text)
    return f"{stem}-py3-none-any.whl", stream.getvalue()


def offer_wheels(bench: Bench, host: str) -> None:
    """Lets pip on the host find the pinned versions, and nothing else."""
    settings = f"[global]\nno-index = true\nfind-links = {WHEELS}\n"
    files = {"/root/.config/pip/pip.conf": settings.encode()}
    for line in pinned_constraints().split():
        file_name, data = make_wheel(*line.split("=="))
        files[f"{WHEELS}/{file_name}"] = data
    for path, data in files.items():
        script = f'mkdir -p "$(dirname {path})" && base64 -d > {path} <<END\n'
        script += base64.b64encode(data).decode() + "\nEND\n"
        done = bench.lab.exec(host, ["sh", "-c", script])
        assert done.returncode == 0, done.stderr


def inventory_with_python(bench: Bench, python: str) -> Path:
    text = bench.lab.inventory.read_text()
    assert sys.executable in text
    path = bench.results / "other-python.yaml"
    path.write_text(text.replace(sys.executable, python))
    return path


def test_a_host_without_packages_gets_an_environment_of_the_pinned_versions(bench: Bench) -> None:
    host = bench.hosts[0]
    inventory = inventory_with_python(bench, base_interpreter())
    offer_wheels(bench, host)
    wanted = ("up", *SHORT, "-s", "stop.env_steps=2000", "--limit", host)
    command = bench.tianji(*wanted, run="first", inventory=inventory)
    assert command.wait(120) == 0, command.said
    assert "lacks" in command.said
    find = ["sh", "-c", "ls -d /root/.tianji/venvs/*"]
    (venv,) = bench.lab.exec(host, find).stdout.split()
    listed = bench.lab.exec(
        host,
        [
            f"{venv}/bin/python",
            "-m",
            "pip",
            "list",
            "--path",
            f"{venv}/lib/python{MINOR}/site-packages",
            "--format",
            "json",
        ],
    )
    versions = {row["name"]: row["version"] for row in json.loads(listed.stdout)}
    pinned = dict(line.split("==") for line in pinned_constraints().split())
    assert pinned.items() <= versions.items()
    stamp = ["stat", "-c", "%y", f"{venv}/.complete"]
    made = bench.lab.exec(host, stamp).stdout
    again = bench.tianji(*wanted, run="again", inventory=inventory)
    assert again.wait(60) == 0, again.said
    assert "lacks" not in again.said
    assert bench.lab.exec(host, stamp).stdout == made
    wanted_version = pinned["msgspec"]
    info = f"{venv}/lib/python{MINOR}/site-packages/msgspec-{wanted_version}.dist-info"
    # Removed, it would go unseen: what is borrowed from this interpreter has another.
    edit = ["sed", "-i", "s/^Version: .*/Version: 0/", f"{info}/METADATA"]
    assert bench.lab.exec(host, edit).returncode == 0
    mended = bench.tianji(*wanted, run="mended", inventory=inventory)
    assert mended.wait(120) == 0, mended.said
    said = " ".join(mended.said.split())
    assert f"is damaged (msgspec is 0, not {wanted_version}): made anew" in said
    assert f"Version: {wanted_version}" in bench.lab.exec(host, ["cat", f"{info}/METADATA"]).stdout
    bench.lab.exec(host, ["rm", "-rf", venv, WHEELS, "/root/.config/pip"])
    bench.assert_nothing_left(hosts=[host])


def test_a_bundle_that_was_changed_on_its_host_is_sent_anew_and_that_is_said(bench: Bench) -> None:
    """By name it is the right one; unseen, another protocol would be spoken there."""
    one, other, *_ = bench.hosts
    limits = ("--limit", one, "--limit", other)
    first = bench.tianji("up", *SHORT, "-s", "stop.env_steps=1000", *limits, run="before")
    assert first.wait(60) == 0, first.said
    bundles = "/root/.tianji/bundles"
    here, there = (f"PROTOCOL_VERSION = {engine.PROTOCOL_VERSION + n}" for n in (0, 98))
    edit = f"sed -i 's/^{here}$/{there}/' {bundles}/*/engine/__init__.py && grep -h '{there}' "
    done = bench.lab.exec(other, ["sh", "-c", f"{edit} {bundles}/*/engine/__init__.py"])
    assert there in done.stdout, done.stderr
    mended = bench.tianji("up", *SHORT, "-s", "stop.env_steps=1000", *limits, run="mended")
    assert mended.wait(60) == 0, mended.said
    said = " ".join(mended.said.split())
    assert "engine/__init__.py does not have its checksum): sent anew" in said
    assert said.count("sent anew") == 1, "the other host's is whole"
    bench.assert_nothing_left()


def test_a_host_with_another_python_is_refused_with_both_versions(bench: Bench) -> None:
    python = other_python()
    if python is None:
        pytest.skip(f"this machine has no Python but {MINOR}")
    inventory = inventory_with_python(bench, str(python))
    refused = bench.tianji("up", *SHORT, run="old", inventory=inventory)
    assert refused.wait(60) == 6, refused.said
    said = " ".join(refused.said.split())
    assert f"here runs {MINOR}" in said
    assert f"apt install python{MINOR}" in said
    bench.assert_nothing_left()
