"""What programs believe done and the service does not have: closed without a commit, or not removed."""

import threading

from blobfs.format.names import is_within


class LostChanges:
    """Why each was lost, by path, until somebody uses the name anew. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the map
        self._reasons: dict[str, str] = {}

    def note(self, path: str, reason: str) -> None:
        """Take note of something lost; of one path the last is told."""
        with self._lock:
            self._reasons[path] = reason

    def forget(self, path: str) -> None:
        """Forget what was lost of a path, if anything was: it has become something else."""
        with self._lock:
            self._reasons.pop(path, None)

    def rename(self, old_path: str, new_path: str) -> None:
        """Have what was lost below a path follow it to its new name; what it replaces is nobody's."""
        with self._lock:
            self._reasons.pop(new_path, None)
            for path in [path for path in self._reasons if is_within(path, old_path)]:
                self._reasons[new_path + path[len(old_path) :]] = self._reasons.pop(path)

    def below(self, path: str) -> list[tuple[str, str]]:
        """Return what was lost of a path and of all below it: each path, and why."""
        with self._lock:
            return [(lost, reason) for lost, reason in self._reasons.items() if is_within(lost, path)]
