"""The actor: starts a program on its node and carries that program's bytes.

Ray sends this class by value to workers that have no TianJi, so it uses nothing but the standard
library and Ray's own. The program stays in the worker's process group, which Ray ends with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

CHUNK_BYTES = 1 << 18
MAX_ERROR_BYTES = 1 << 14


class Carrier:
    """One program and its streams. Its calls run in threads of their own."""

    def where(self) -> str:
        """The node's address."""
        import ray

        return str(ray.util.get_node_ip_address())

    def start(self, arguments: list[str]) -> None:
        """Starts this worker's Python with these arguments, in the user's home.

        Variables that Ray has set for its worker stay here; one of them can be the cluster's token.
        """
        import ray

        own = ("RAY_", "OMP_NUM_THREADS", "PYTHONBREAKPOINT", "SPT_NOENV")
        env = {name: text for name, text in os.environ.items() if not name.startswith(own)}
        # A job of `ray job submit` gets all of the node's GPUs, whatever was asked for.
        env["CUDA_VISIBLE_DEVICES"] = ",".join(str(number) for number in ray.get_gpu_ids())
        home = os.path.expanduser("~")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env=env,
            cwd=home if os.path.isdir(home) else "/",
        )

    def write(self, data: bytes) -> None:
        """Writes all of it; nothing ends the input."""
        file = self._process.stdin
        assert file is not None
        if not data:
            file.close()
        view = memoryview(data)
        while view:
            view = view[file.write(view) or 0 :]

    def output(self) -> Iterator[bytes]:
        """What it writes, as it comes, up to its end."""
        file = self._process.stdout
        assert file is not None
        while data := file.read(CHUNK_BYTES):
            yield data
        self._process.wait()

    def last_words(self) -> str:
        """The end of its standard error."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - MAX_ERROR_BYTES))
        return self._errors.read().decode("utf-8", "replace").strip()
