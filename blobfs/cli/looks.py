"""Asking mounts of this machine what they do, without waiting for one that is stuck."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blobfs import __version__
from blobfs.cli.control import ANSWER_SECONDS, has_died, read_facts_soon
from blobfs.cli.mountpoint import (
    FILESYSTEM,
    answering_mount_of,
    filesystem_at,
    our_mountpoints,
    real_path,
)
from blobfs.errors import NotFound

FLOWS = ("program_read_bytes", "program_written_bytes", "received_bytes", "sent_bytes")

Facts = Mapping[str, Any]


class Looks:
    """Two readings of each mount, some time apart, and what is wrong with those that gave none."""

    def __init__(self, mountpoint: Path | None) -> None:
        """Take the first reading. Raises a Failure if there is no mount where one was named."""
        self._mountpoint = None if mountpoint is None else real_path(mountpoint)
        self.troubles: list[str] = []
        self._before: dict[Path, Facts] = {}
        self._after = self._read()

    def take(self, seconds: float) -> None:
        """Wait so long and read again."""
        time.sleep(seconds)
        self._before, self._after = self._after, self._read()

    def facts(self) -> list[dict[str, Any]]:
        """Return what each mount says of itself, and the throughput between the two readings."""
        return [{**facts, **self._throughput(path, facts)} for path, facts in self._after.items()]

    def _throughput(self, path: Path, facts: Facts) -> dict[str, float]:
        before = self._before.get(path, facts)
        seconds = max(facts["uptime_seconds"] - before["uptime_seconds"], 0.001)
        return {f"{name}_per_second": (facts[name] - before[name]) / seconds for name in FLOWS}

    def _read(self) -> dict[Path, Facts]:
        self.troubles = []
        found: dict[Path, Facts] = {}
        for path in self._wanted():
            facts = self._ask(path)
            if facts is not None:
                found[path] = {"mountpoint": str(path), **facts}
        return found

    def _wanted(self) -> Sequence[Path]:
        if self._mountpoint is None:
            return our_mountpoints()
        if filesystem_at(self._mountpoint) != FILESYSTEM:
            root = answering_mount_of(self._mountpoint)
            inside = f", but lies inside a mount: {root}" if root is not None else ""
            raise NotFound(f"{self._mountpoint} is not mounted by blobfs{inside}.")
        return [self._mountpoint]

    def _ask(self, path: Path) -> Facts | None:
        """Return a mount's facts; None, with a note, if it gives none."""
        try:
            facts = read_facts_soon(path)
            if facts is None or facts.get("version") == __version__:
                return facts
            self.troubles.append(f"{path} is served by another version of blobfs. Ask with that one.")
        except PermissionError:
            if self._mountpoint is not None:
                self.troubles.append(f"{path} is another user's mount. Ask as that user.")
        except TimeoutError:
            self.troubles.append(f"{path} does not answer within {ANSWER_SECONDS:.0f} seconds.")
        except OSError as error:
            died = f"its process has died. Run blobfs umount {path}."
            self.troubles.append(f"{path}: {died if has_died(error) else os.strerror(error.errno or 0)}")
        return None
