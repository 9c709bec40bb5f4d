"""When changes of directories' attributes are sent: at once, or, with write-back, together a while later.

A copy sets a directory's mode, owner and times one after the other, and again when all is in it.
"""

import copy
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from blobfs.errors import Failure, NotFound, failure_of, raise_first
from blobfs.filesystem.commits import RECOMMIT_SECONDS, Uncommitted
from blobfs.filesystem.upload_queue import DELAY_SECONDS
from blobfs.filesystem.volume import Volume
from blobfs.format.attributes import Attributes, check_size, metadata_of
from blobfs.tree.cache import Node
from blobfs.tree.directory_changes import Change

logger = logging.getLogger(__name__)

MOST_CHANGES = 16  # of one directory that wait: each is made again whenever its attributes are asked for
ON_THEIR_WAY = "its mode, owner or times, on their way"


class DirectoryCommits:
    """Sends what is changed of a volume's directories; `most_behind` of them may wait for that."""

    def __init__(self, volume: Volume, *, most_behind: int) -> None:
        self._volume = volume
        self._most_behind = most_behind
        self._sent = threading.Condition()  # guards the field below; never held across a request
        self._under_way: set[str] = set()  # names; who puts one here also keeps its entry in the field below
        self._troubles: dict[str, Failure] = {}  # why what is due was not stored the last time

    def take(self, path: str, change: Change) -> bool:
        """Have a directory's change sent later; False for what is none, or may not wait.

        Then it is to be made now: what waited of the directory before has been sent. Blocks. Raises Failure.
        """
        directory = self._directory(path) if self._most_behind else None
        if directory is None:
            return False
        if self._keep(path, directory, change):
            return True
        self.commit(path)
        return False

    def commit(self, path: str) -> None:
        """Send what is still to be sent of a directory, if it is there. Blocks. Raises Failure."""
        changes, name = self._volume.directory_changes, self._volume.names.blob_name(path)
        if not changes.of(name):
            return
        with self._sent:
            self._sent.wait_for(lambda: name not in self._under_way)
            due = changes.of(name)
            if not due:
                return
            self._under_way.add(name)
        try:
            self._send(path)
        except NotFound:
            logger.info("%s was removed before its mode, owner or times were stored", path)
            changes.remove(name, due)
            self._troubles.pop(name, None)
        except Failure as failure:
            if name not in self._troubles:
                logger.error("the mode, owner or times of %s are not stored yet, but kept: %s", path, failure)
            self._troubles[name] = copy.copy(failure)  # raised, it refers to all that was there then
            raise
        else:
            changes.remove(name, due)
            if self._troubles.pop(name, None):
                logger.warning("the mode, owner and times of %s are stored after all", path)
        finally:
            with self._sent:
                self._under_way.discard(name)
                self._sent.notify_all()

    @contextmanager
    def given_up(self, path: str) -> Iterator[None]:
        """Send nothing of a directory that goes meanwhile; if that fails, all is as it was.

        There may be changes where no directory is, too: somebody else has removed it.
        """
        changes, name = self._volume.directory_changes, self._volume.names.blob_name(path)
        with self._sent:
            self._sent.wait_for(lambda: name not in self._under_way)
            kept = changes.take(name)
        with ExitStack() as undo:
            undo.callback(self._put_back, path, kept)
            yield
            undo.pop_all()
        self._troubles.pop(name, None)

    def forget_below(self, path: str) -> None:
        """Send nothing of directories that were below a path, where others are to be."""
        prefix = self._volume.names.directory_prefix(path)
        for name in self._volume.directory_changes.below(prefix):
            with self.given_up(self._volume.path_of(name)):
                pass

    def commit_below(self, path: str) -> None:
        """Send what is still to be sent of a directory and all below it. Raises the first failure."""
        raise_first(self.sync(path))

    def sync(self, path: str) -> list[Failure]:
        """Send what is still to be sent of a directory and all below it; return what failed."""
        volume = self._volume
        due = volume.directory_changes.below(volume.names.directory_prefix(path))
        return volume.transfers.failures_of_each(self.commit, map(volume.path_of, due))

    def uncommitted(self) -> list[Uncommitted]:
        """Name the directories whose attributes the service does not have."""
        found = []
        for name in self._volume.directory_changes.below(self._volume.names.prefix):
            failure = self._troubles.get(name)
            reason = str(failure) if failure else ON_THEIR_WAY
            found.append(Uncommitted(self._volume.path_of(name), reason, has_failed=failure is not None))
        return found

    def _directory(self, path: str) -> Node | None:
        if path == "/" or self._volume.local_file(path) is not None:
            return None
        node = self._volume.namespace.node(path)
        return node if node.is_directory else None

    def _keep(self, path: str, directory: Node, change: Change) -> bool:
        """Have a change sent later; False if too much waits already, or there is no marker to change.

        Raises NoSpace.
        """
        volume, name = self._volume, self._volume.names.blob_name(path)
        changes = volume.directory_changes
        kept = len(changes.of(name))
        has_room = kept < MOST_CHANGES if kept else len(changes) < self._most_behind
        if directory.blob is None or not has_room:
            return False
        attributes = change(volume.attributes_of_node(name, directory))
        check_size(metadata_of(attributes, directory.blob.metadata))
        # What its entries have changed is older than this change.
        entries_ns = volume.directory_times.get(name)
        earlier = [partial(_changed_at, entries_ns)] if entries_ns else []
        is_first = changes.add(name, *earlier, change)
        volume.directory_times.forget(name, entries_ns)
        if is_first:
            self._send_after(DELAY_SECONDS, path, RECOMMIT_SECONDS[0])
        return True

    def _put_back(self, path: str, kept: Sequence[Change]) -> None:
        if kept and self._volume.directory_changes.put_back(self._volume.names.blob_name(path), kept):
            self._send_after(DELAY_SECONDS, path, RECOMMIT_SECONDS[0])

    def _send(self, path: str) -> None:
        if not self._volume.namespace.node(path).is_directory:
            raise NotFound(f"{path}: no directory any more")
        self._volume.change_attributes(path, _as_shown)

    def _send_after(self, seconds: float, path: str, wait_seconds: float) -> None:
        self._volume.transfers.run_after(seconds, partial(self._send_due, path, wait_seconds))

    def _send_due(self, path: str, wait_seconds: float) -> None:
        """Send what is due; what fails, again after so many seconds, and then after twice as many."""
        if failure_of(self.commit, path) is not None:
            self._send_after(wait_seconds, path, min(2 * wait_seconds, RECOMMIT_SECONDS[1]))
        elif self._volume.directory_changes.of(self._volume.names.blob_name(path)):
            self._send_after(DELAY_SECONDS, path, RECOMMIT_SECONDS[0])  # changed meanwhile


def _changed_at(time_ns: int, attributes: Attributes) -> Attributes:
    return attributes._replace(mtime_ns=time_ns, ctime_ns=time_ns)


def _as_shown(attributes: Attributes) -> Attributes:
    return attributes
