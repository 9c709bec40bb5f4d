"""A program that works on files until its mount dies, and keeps a record elsewhere of what it was told.

Each line of the record is ["begin" or "end", operation, name, state]: the state of a name is a hash
of its bytes, or empty if it is gone. "end" is written when the call has returned without an error.
"""

import hashlib
import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PIECE_BYTES = 4096  # what is written at a time, on a grid of that: each lies in one block
NAMES = 5


class Load:
    """Files of one process: made, appended to, edited, synced, renamed and removed at random."""

    def __init__(self, directory: Path, record: Path, seed: int) -> None:
        self._directory = directory
        self._record = os.open(record, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._random = random.Random(seed)
        self._prefix = f"{seed}-"
        self._files: dict[str, bytearray] = {}

    def run(self) -> None:
        """Work until the mount is gone."""
        with suppress(OSError):
            while True:
                self._random.choice([self._create, self._change, self._change, self._rename, self._unlink])()

    def _create(self) -> None:
        name = self._any_name()
        self._files[name] = bytearray()
        self._edit(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)

    def _change(self) -> None:
        if self._files:
            self._edit(self._random.choice(sorted(self._files)), os.O_WRONLY)

    def _rename(self) -> None:
        old, new = self._any_name(), self._any_name()
        if old in self._files and old != new:
            content = self._files[old]
            with self._told("rename", new, state_of(content)), self._told("leave", old, ""):
                os.rename(self._directory / old, self._directory / new)
            self._files[new] = self._files.pop(old)

    def _unlink(self) -> None:
        name = self._any_name()
        if name in self._files:
            with self._told("unlink", name, ""):
                os.unlink(self._directory / name)
            del self._files[name]

    def _edit(self, name: str, flags: int) -> None:
        content = self._files[name]
        with self._told("open", name, state_of(content)):
            descriptor = os.open(self._directory / name, flags, 0o600)
        for _ in range(self._random.randrange(1, 12)):
            self._write(descriptor, name, content)
            if self._random.random() < 0.1:
                with self._told("fsync", name, state_of(content)):
                    os.fsync(descriptor)
        with self._told("close", name, state_of(content)):
            os.close(descriptor)

    def _write(self, descriptor: int, name: str, content: bytearray) -> None:
        pieces = len(content) // PIECE_BYTES
        is_append = self._random.random() < 0.7
        offset = PIECE_BYTES * (pieces if is_append else self._random.randrange(pieces + 1))
        data = self._random.randbytes(PIECE_BYTES)
        content[offset : offset + PIECE_BYTES] = data
        with self._told("write", name, state_of(content)):
            os.pwrite(descriptor, data, offset)

    def _any_name(self) -> str:
        return f"{self._prefix}{self._random.randrange(NAMES)}"

    @contextmanager
    def _told(self, *what: str) -> Iterator[None]:
        self._tell("begin", *what)
        yield
        self._tell("end", *what)

    def _tell(self, *line: str) -> None:
        os.write(self._record, json.dumps(line).encode() + b"\n")


def state_of(content: bytes | bytearray) -> str:
    """Return what stands for these bytes in the record."""
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    Load(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])).run()
