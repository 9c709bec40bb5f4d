"""The mounted container as one object: what every operation works on, and the steps they share."""

import logging
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from blobfs.content.first_bytes import FirstBytes
from blobfs.content.reader import BlobReader
from blobfs.content.warming import Warming
from blobfs.errors import AlreadyExists, Changed, NotFound, ReadOnly
from blobfs.filesystem.file_table import FileTable
from blobfs.filesystem.files import File, FileState
from blobfs.filesystem.kernel_pages import KernelPages
from blobfs.filesystem.lost_changes import LostChanges
from blobfs.filesystem.orphans import Orphans
from blobfs.filesystem.own_writes import OwnWrites
from blobfs.format.attributes import Attributes, Defaults, attributes_of, check_size, metadata_of
from blobfs.format.names import is_hidden_name, split_path
from blobfs.store import IF_ABSENT, BlobInfo, ContentHeaders, Properties
from blobfs.transfers import Transfers
from blobfs.tree.cache import Node
from blobfs.tree.copy_detector import CopyDetector, nobody
from blobfs.tree.directory_changes import DirectoryChanges
from blobfs.tree.inodes import DirectoryTimes, InodeNumbers
from blobfs.tree.namespace import DIRECTORY, Lookup, Namespace

logger = logging.getLogger(__name__)

DIRECTORY_BYTES = 4096  # what directories show as their size, as on most Linux filesystems


class Caller(NamedTuple):
    """On whose behalf an operation runs: ids for what it creates. The kernel has checked permissions."""

    uid: int
    gid: int


class Stat(NamedTuple):
    """What stat(2) tells of a file."""

    attributes: Attributes
    inode: int
    links: int
    size_bytes: int


class Answer(NamedTuple):
    """What the service said of a blob, and when it was asked."""

    info: BlobInfo
    last_write: int  # of ours to the name, before it was asked
    asked_at: float  # by the namespace's clock


class Volume:
    """State shared by all operations of one mount, and the primitives they are made of."""

    def __init__(
        self,
        *,
        store: OwnWrites,
        namespace: Namespace,
        copy_detector: CopyDetector,
        reader: BlobReader,
        first_bytes: FirstBytes,
        warming: Warming,
        transfers: Transfers,
        defaults: Defaults,
        read_only: bool,
        make_file: Callable[[str, int, BlobInfo | None, Attributes], File],
    ) -> None:
        self.store = store
        self.namespace = namespace
        self.copy_detector = copy_detector
        self.names = namespace.names
        self.reader = reader
        self.first_bytes = first_bytes
        self.warming = warming
        self.transfers = transfers
        self.defaults = defaults
        self.read_only = read_only
        self.files = FileTable(namespace.cache.now)
        self.pages = KernelPages()
        self.orphans = Orphans(self.files)
        self.lost_changes = LostChanges()
        self.inodes = InodeNumbers()
        self.directory_times = DirectoryTimes()
        self.directory_changes = DirectoryChanges()
        self._make_file = make_file
        self._mounted_ns = time.time_ns()
        self._root = self._virtual_directory()

    # Looking…

    def stat(
        self,
        path: str,
        thread: Callable[[], int] = nobody,
        before_asking: Callable[[str], None] | None = None,
    ) -> Stat:
        """Return what stands under a path, to a thread of some program. Raises NotFound."""
        file = self.local_file(path)
        if file is not None:
            return self.stat_of_file(file)
        lookup = Lookup(lambda: self.copy_detector.is_copying(thread()), before_asking, may_search=True)
        try:
            node = self.namespace.node(path, lookup)
        except NotFound:
            self.copy_detector.missed(thread(), path)
            raise
        return self.stat_of_node(self.names.blob_name(path), node)

    def stat_of_file(self, file: File) -> Stat:
        """Return the live state of an open file."""
        links = 0 if file.state is FileState.UNLINKED else 1
        return Stat(file.attributes, file.inode, links, file.size_bytes)

    def stat_of_node(self, name: str, node: Node) -> Stat:
        """Return what is known of a name, a file's or a directory's."""
        attributes = self.attributes_of_node(name, node)
        if node.is_directory:
            below = self.namespace.cache.count_subdirectories(f"{name}/" if name else "")
            # One link, as on btrfs, says that subdirectories are not counted.
            links = 1 if below is None else 2 + below
            return Stat(attributes, self.inodes.of(name), links, DIRECTORY_BYTES)
        assert node.blob is not None
        size_bytes = node.blob.size_bytes if attributes.is_regular or attributes.is_symlink else 0
        return Stat(attributes, self.inodes.of(name), 1, size_bytes)

    def attributes_of_node(self, name: str, node: Node) -> Attributes:
        """Return the attributes stored with a blob or marker, or the defaults of a virtual directory."""
        if not node.is_directory:
            assert node.blob is not None
            return attributes_of(node.blob, self.defaults)
        if name == self.names.blob_name("/"):
            attributes = self._root
        elif node.blob is not None:
            attributes = attributes_of(node.blob, self.defaults)
        else:
            attributes = self._virtual_directory()
        attributes = self.directory_changes.made_on(name, attributes)
        changed_ns = self.directory_times.get(name)
        return attributes._replace(mtime_ns=changed_ns, ctime_ns=changed_ns) if changed_ns else attributes

    def local_file(self, path: str) -> File | None:
        """Return the file of a path if this mount knows more of it than the service does.

        Raises Changed, NotFound for hidden names: see Orphans.
        """
        if is_hidden_name(path):
            return self.orphans.get(path)
        file = self.files.get(self.names.blob_name(path))
        if file is None:
            return None
        # In this order: what is committed in between must not be missed by both.
        knows_more = file.is_unsent
        self.note_commit(file)
        return file if knows_more else None

    def note_commit(self, file: File) -> None:
        """Record what a file has committed since the last call, as a name and for the kernel's pages."""
        if file.unnoted_commit is None:
            return
        with file.lock:  # so that what is known does not overtake a later change of the name
            self._record_commit(file)

    def _record_commit(self, file: File) -> None:
        committed = file.unnoted_commit
        if committed is not None:
            self.namespace.record(self.path_of(committed.name), Node(committed))
            if file.has_foreign_pages or file.is_uncommitted:
                self.pages.distrust(committed.name)
            else:
                self.pages.note_version(committed.name, committed.etag)
            file.unnoted_commit = None  # only now: who sees that there are none asks the namespace

    def path_of(self, name: str) -> str:
        """Return the path under which a blob of this mount shows."""
        return "/" + name[len(self.names.prefix) :]

    def size_told(self, file: File) -> int:
        """Return where the kernel may believe that the version of an open file ends.

        It has one size for all who have a name open, and stat(2) may have told it that of another
        client's newer version: it ends a reader's file there, or fills it up with zeros.
        """
        if file.has_foreign_pages or file.is_uncommitted or file.state is not FileState.NAMED:
            return file.size_bytes
        with file.lock:  # so that what was committed here is known
            self.note_commit(file)
            newest = self._newest(file)
            return file.size_bytes if newest is None else newest.size_bytes

    def _newest(self, file: File) -> BlobInfo | None:
        """Return what this mount last knew a file's name to be."""
        name = self.files.name_of_pages(file)
        under_name = self.files.get(name)
        if under_name is not None and under_name is not file:
            return under_name.base
        return self._last_known_node(self.path_of(name)).blob

    # Changing…

    def check_writable(self, path: str) -> None:
        """Raise ReadOnly on a read-only mount."""
        if self.read_only:
            raise ReadOnly(f"{path}: the mount is read-only")

    def file_of(self, path: str, node: Node) -> File:
        """Make a file object of what was found under a path."""
        return self.make_file(path, self.attributes_of_node(self.names.blob_name(path), node), node.blob)

    def make_file(self, path: str, attributes: Attributes, base: BlobInfo | None = None) -> File:
        """Make a file object of a path, which is not yet in the table of files."""
        name = self.names.blob_name(path)
        return self._make_file(name, self.inodes.of(name), base, attributes)

    def attributes_for_new(self, path: str, mode: int, caller: Caller, rdev: int = 0) -> Attributes:
        """Return the attributes of something made now; a set-gid directory hands its group down."""
        now = time.time_ns()
        parent = self._last_known_attributes(split_path(path)[0])
        gid = caller.gid
        if parent.mode & stat.S_ISGID:
            gid = parent.gid
            mode |= stat.S_ISGID if stat.S_ISDIR(mode) else 0
        return Attributes(mode, caller.uid, gid, now, now, now, rdev)

    def put_new(self, path: str, body: bytes, attributes: Attributes) -> None:
        """Make a blob that is complete at once: a marker, a symlink, a node. Raises AlreadyExists."""
        metadata = metadata_of(attributes, {})
        check_size(metadata)
        name = self.names.blob_name(path)
        info = self.store.put_blob(name, body, Properties(metadata, ContentHeaders()), IF_ABSENT)
        self.reader.keep(info, memoryview(body))
        self.namespace.record(path, Node(info, is_directory=attributes.is_directory))
        self.appeared(path)

    def appeared(self, path: str) -> None:
        """Note that a name was made here."""
        self.copy_detector.made(path)
        self.entry_changed(path)

    def entry_changed(self, path: str) -> None:
        """Note that a name appeared in or went from its directory."""
        parent = self.names.blob_name(split_path(path)[0])
        self.directory_times.touch(parent, time.time_ns())

    def keep_parent_of(self, path: str) -> None:
        """Give the directory that an entry has left a marker if nothing else keeps it: directories stay.

        Blocks for that request. Raises Failure.
        """
        parent = split_path(path)[0]
        if parent == "/" or self._last_known_node(parent).blob is not None:
            return
        if self.namespace.is_known_empty(parent):
            name = self.names.blob_name(parent)
            metadata = metadata_of(self._virtual_directory(), {})
            try:
                info = self.store.put_blob(name, b"", Properties(metadata), IF_ABSENT)
            except AlreadyExists:  # somebody else's marker, or a blob that the directory stood in front of
                self.namespace.forget(parent)
            else:
                self.namespace.record(parent, Node(info, is_directory=True))

    def change_attributes(self, path: str, change: Callable[[Attributes], Attributes]) -> None:
        """Change what stat(2) or getxattr(2) tell of a path. Raises NotFound, NoSpace, ReadOnly."""
        self.check_writable(path)
        file = self.local_file(path)
        if file is not None:
            self._change_file(file, change)
        elif path == "/":
            self._root = change(self._root)
        else:
            self._change_stored(path, change)

    def _change_file(self, file: File, change: Callable[[Attributes], Attributes]) -> None:
        stored = file.set_attributes(change)
        if stored is not None:
            old, new = stored
            self.namespace.record(self.path_of(new.name), Node(new))
            self.same_bytes(old, new)

    def _change_stored(self, path: str, change: Callable[[Attributes], Attributes]) -> None:
        """Change what is stored, again if it was out of date: the change itself does not depend on that."""
        node = self.namespace.node(path)
        try:
            if node.is_directory:
                self._change_directory(path, node, change)
                return
            # Through the file, so that whoever opens and commits it meanwhile waits for its lock.
            with self.held(path, node) as file:
                self._change_file(file, change)
        except (Changed, NotFound):  # without its marker, a directory may still have something in it
            self.namespace.forget(path)
            self._change_newest(path, change)

    def _change_newest(self, path: str, change: Callable[[Attributes], Attributes]) -> None:
        """Change what somebody else has made of a path."""
        node = self.namespace.node(path)
        if node.is_directory:
            self._change_directory(path, node, change)
            return
        file = self.enter_current(path, lambda: self.store.head(self.names.blob_name(path)))[0]
        try:
            self._change_file(file, change)
        finally:
            self.files.leave(file)

    def _change_directory(self, path: str, node: Node, change: Callable[[Attributes], Attributes]) -> None:
        name = self.names.blob_name(path)
        changed_ns = self.directory_times.get(name)
        attributes = change(self.attributes_of_node(name, node))
        old = node.blob
        metadata = metadata_of(attributes, old.metadata if old is not None else {})
        check_size(metadata)
        if old is None:
            info = self.store.put_blob(name, b"", Properties(metadata), IF_ABSENT)
        else:
            info = old._replace(etag=self.store.set_metadata(old.version, metadata), metadata=metadata)
        self.namespace.record(path, Node(info, is_directory=True))
        self.directory_times.forget(name, changed_ns)

    @contextmanager
    def held(self, path: str, node: Node) -> Iterator[File]:
        """Keep the file of a path in the table of files for a while: the one that is there, or a new one."""
        known = self.files.enter_known(self.names.blob_name(path))
        if known is None and node.blob is None:
            raise NotFound(f"{path}: no such file or directory")
        file = known or self.files.enter(self.file_of(path, node))
        try:
            yield file
        finally:
            self.files.leave(file)

    def enter_current(
        self, path: str, ask: Callable[[], BlobInfo], answer: Answer | None = None
    ) -> tuple[File, Answer | None]:
        """Enter the file of a path in the table of files, as the service has it at this moment.

        The second value is what the service said, None if a file in the table was taken instead.
        An `answer` that is at hand spares asking. Asks again if this mount writes the name meanwhile:
        the answer may be from before.
        """
        name = self.names.blob_name(path)
        while True:
            if answer is None:
                last_write, asked_at = self.store.last_write(name), self.namespace.cache.now()
                answer = Answer(ask(), last_write, asked_at)
            mine = self.file_of(path, Node(answer.info))
            is_outdated = partial(self.store.is_overtaken, name, answer.last_write)
            file = self.files.enter_unless(mine, is_outdated=is_outdated)
            if file is not None and file is not mine:
                return file, None
            # Whoever writes from here on finds the file in the table. Before, nobody did.
            if file is not None and not is_outdated():
                return file, answer
            if file is not None:
                self.files.leave(file)
            answer = None

    def same_bytes(self, old: BlobInfo, new: BlobInfo) -> None:
        """Keep what is cached of a blob, here and in the kernel, under its new version."""
        self.reader.rename(old, new)
        self.pages.rename(old, new)

    def _last_known_node(self, path: str) -> Node:
        return self.namespace.last_known(path) or DIRECTORY

    def _last_known_attributes(self, path: str) -> Attributes:
        node = DIRECTORY if path == "/" else self._last_known_node(path)
        return self.attributes_of_node(self.names.blob_name(path), node)

    def _virtual_directory(self) -> Attributes:
        owner, time_ns = self.defaults, self._mounted_ns
        return Attributes(owner.directory_mode, owner.uid, owner.gid, time_ns, time_ns, time_ns)
