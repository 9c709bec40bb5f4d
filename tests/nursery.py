"""Commands forked off one process that has imported everything: a mount starts in a tenth of a second.

Each line of its input is JSON, [argument, …, file for the output]: `blobfs` with these arguments, or, behind
"load", the program of `load`. It answers each with the number of the process, which begins when another
line has come: by then somebody watches it.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from mounts import clean_environment

_TESTS = Path(__file__).parent


class Process:
    """A command that was forked off."""

    def __init__(self, number: int, output: Path) -> None:
        self.pid = number
        self._output = output
        self._descriptor = os.pidfd_open(number)
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def said(self) -> str:
        """What it has written until now, to stdout and stderr."""
        return self._output.read_text()

    def has_ended(self, within_seconds: float = 0.0) -> bool:
        """Wait so long for its end at most; tell whether it came."""
        end = select.poll()
        end.register(self._descriptor, select.POLLIN)
        return bool(end.poll(within_seconds * 1000))

    def kill(self) -> None:
        """Let it die at once, and return when it has."""
        signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        assert self.has_ended(60)


class Nursery:
    """The commanding side. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # for a command and its answer

    def __enter__(self) -> "Nursery":
        paths = os.pathsep.join((str(_TESTS), str(_TESTS.parent)))
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**clean_environment(), "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)

    def start(self, *arguments: str | Path, output: Path) -> Process:
        """Fork a command off, and return while it runs."""
        assert self._process.stdin
        assert self._process.stdout
        output.touch()
        with self._lock:
            self._process.stdin.write(json.dumps([*map(str, arguments), str(output)]) + "\n")
            self._process.stdin.flush()
            process = Process(int(self._process.stdout.readline()), output)
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            return process


def _become(arguments: Sequence[str], output: str) -> NoReturn:
    """Be the command, to its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        if arguments[0] == "load":
            Load(Path(arguments[1]), Path(arguments[2]), int(arguments[3])).run()
        else:
            blobfs.main(list(arguments), prog_name="blobfs")
    finally:
        sys.stdout.flush()
        os._exit(0)  # what stands behind in this process is not the command's


if __name__ == "__main__":
    from load import Load

    import blobfs.mount
    from blobfs.cli.main import blobfs

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them but by their descriptors
    for line in sys.stdin:
        *arguments, output = json.loads(line)
        reader, writer = os.pipe()
        number = os.fork()
        if not number:
            os.close(writer)
            os.read(reader, 1)  # returns when the other end is closed
            _become(arguments, output)
        print(number, flush=True)
        sys.stdin.readline()
        os.close(reader)
        os.close(writer)
