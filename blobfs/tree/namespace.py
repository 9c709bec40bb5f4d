"""What is under a path: names resolved and directories listed, from the cache or the service.

A virtual directory is a prefix that some blob has, or a marker blob, or both. Where a blob
``a`` and blobs ``a/…`` exist, the directory has the name, and the blob is reported.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import cachetools

from blobfs.blocks import MAX_LIST_RESULTS
from blobfs.callers import Callers
from blobfs.errors import NotADirectory, NotFound
from blobfs.format.attributes import is_directory_marker
from blobfs.format.names import NameMap, refusal, split_path
from blobfs.store import BlobInfo, BlobStore, ListPage, pages_of
from blobfs.transfers import Transfers
from blobfs.tree.cache import NO_THREAD, Node, TreeCache, Walk
from blobfs.tree.walks import SEARCH, WALK, Gathered, Walks

logger = logging.getLogger(__name__)

SMALL_DIRECTORY = MAX_LIST_RESULTS  # names: what one request lists
NEIGHBOURS = 16  # names asked for to see whether one name is a blob, a prefix, or neither

DIRECTORY = Node(None, is_directory=True)


class Lookup(NamedTuple):
    """How a name is looked up for a caller."""

    believe_absence: Callable[[], bool] = lambda: False  # as of when its directory was last asked for
    before_asking: Callable[[str], None] | None = None  # called with the path if nothing is known of it
    may_search: bool = False  # all over a tree, while it believes absence: then it is served like a walk


PLAIN = Lookup()


class Namespace:
    """Names of one container, below one prefix. Methods that miss the cache block for a request or two."""

    def __init__(
        self,
        store: BlobStore,
        cache: TreeCache,
        names: NameMap,
        transfers: Transfers,
        callers: Callers,
        *,
        close_to_open: bool = True,
    ) -> None:
        """Without `close_to_open`, whatever the cache still knows is trusted, absent names included."""
        self.names = names
        self.cache = cache
        self.close_to_open = close_to_open
        self._store = store
        self._callers = callers
        self._walks = Walks(store, cache, self._offer, transfers, callers, WALK)
        # What a search has listed is not kept for that search: all callers may see it.
        self._searches = Walks(
            store, cache, lambda found, _: self._offer(found, None), transfers, callers, SEARCH
        )
        self._lock = threading.Lock()  # guards the two maps below
        self._reported: cachetools.LRUCache[str, bool] = cachetools.LRUCache(10_000)
        self._hidden: cachetools.LRUCache[str, dict[str, str]] = cachetools.LRUCache(1000)

    def node(self, path: str, lookup: Lookup = PLAIN) -> Node:
        """Return what is under a path. Raises NotFound, InvalidName, NameTooLong."""
        if path == "/":
            return DIRECTORY
        node = self.find(path, lookup)
        if node is None:
            raise NotFound(f"{path}: no such file or directory")
        return node

    def find(self, path: str, lookup: Lookup = PLAIN) -> Node | None:
        """Like `node`, but None where there is nothing.

        A name counts as absent only if the service says so now. Without close-to-open, or for a caller
        that believes absence, it is enough that it was absent when its directory was last asked for.
        """
        self.names.blob_name(path)
        parent, entry = split_path(path)
        prefix = self.names.directory_prefix(parent)
        belief = self.cache.lookup(prefix, entry)
        if not belief.is_known:
            belief = self.cache.lookup(prefix, entry, self._thread())
        if belief.node is not None or (
            belief.is_known and (not self.close_to_open or lookup.believe_absence())
        ):
            return belief.node
        if lookup.before_asking is not None and not belief.is_known:
            lookup.before_asking(path)
        last = self.cache.last_known(prefix, entry)
        is_file = last is not None and last.blob is not None and not last.is_directory
        may_list = self.cache.is_worth_listing(prefix)
        if is_file and not (may_list and self.cache.note_miss(prefix)):
            return self._recheck_file(prefix, entry)
        if may_list:
            if lookup.may_search and lookup.believe_absence():
                with self._searches.visit(prefix):
                    self._searches.read_up_to(prefix)
                belief = self.cache.lookup(prefix, entry)
                if belief.is_known:
                    return belief.node
            listed = self._list_small(prefix)
            if listed is not None:
                return listed.get(entry)
        return self._ask(prefix, entry)

    def last_known(self, path: str) -> Node | None:
        """Return what a path was when it was last asked for, however long ago; None if nothing is known."""
        parent, entry = split_path(path)
        return self.cache.last_known(self.names.directory_prefix(parent), entry)

    def believed(self, path: str) -> BlobInfo | None:
        """Return the blob that the cache has for a path; None if it has no blob, or knows nothing now."""
        parent, entry = split_path(path)
        node = self.cache.lookup(self.names.directory_prefix(parent), entry).node
        return node.blob if node is not None else None

    def entries(self, path: str) -> dict[str, Node]:
        """Return a directory's complete listing. Raises NotFound, NotADirectory."""
        prefix = self.names.directory_prefix(path)
        thread = self._thread()
        with self._walks.visit(prefix):
            known = self.cache.listing(prefix, thread)
            if known is None and self._walks.read_up_to(prefix):
                known = self.cache.listing(prefix, thread)
            return known if known is not None else self._list(path, prefix)

    def list_again(self, prefix: str) -> bool:
        """List a directory, whatever the cache says; False if that takes more than one request."""
        return self._list_small(prefix) is not None

    def below(self, path: str) -> tuple[BlobInfo | None, bool]:
        """Ask the service what is below a directory, whatever the cache says.

        Returns its marker in the old style, if it has one, and whether there is anything else.
        """
        prefix = self.names.directory_prefix(path)
        pages = pages_of(self._store, prefix, max_results=2)
        first = list(islice((blob for page in pages for blob in page.blobs), 2))
        marker = next((blob for blob in first if blob.name == prefix and is_directory_marker(blob)), None)
        return marker, len(first) > (marker is not None)

    def descendants(self, path: str) -> Iterator[BlobInfo]:
        """Yield every blob below a directory, whatever the cache says; its own marker is not one."""
        prefix = self.names.directory_prefix(path)
        for page in pages_of(self._store, prefix):
            yield from page.blobs

    def hidden(self, path: str) -> dict[str, str]:
        """Return the blobs of a listed directory that cannot be shown, with the reason for each."""
        with self._lock:
            return dict(self._hidden.get(self.names.directory_prefix(path), {}))

    def record(self, path: str, node: Node | None) -> None:
        """Record what a path is now, because this mount made it so or asked a moment ago."""
        if path != "/":
            parent, entry = split_path(path)
            self.cache.record(self.names.directory_prefix(parent), entry, node)

    def record_answer(self, path: str, node: Node, asked_at: float) -> None:
        """Record what the service said, unless something newer is known."""
        parent, entry = split_path(path)
        self.cache.record_answer(self.names.directory_prefix(parent), entry, node, asked_at)

    def forget(self, path: str) -> None:
        """Forget what is known of a path."""
        if path != "/":
            parent, entry = split_path(path)
            self.cache.forget(self.names.directory_prefix(parent), entry)

    def forget_below(self, path: str) -> None:
        """Forget what is known of a directory's entries and of all below them."""
        self.cache.forget_tree(self.names.directory_prefix(path))

    def record_empty(self, path: str) -> None:
        """Record an empty directory, which this mount has just made."""
        self.cache.record_empty(self.names.directory_prefix(path))

    def is_known_empty(self, path: str) -> bool:
        """Tell whether a directory, listed however long ago, has nothing left after this mount's changes."""
        return self.cache.is_known_empty(self.names.directory_prefix(path))

    def _thread(self) -> int:
        """Return the caller's thread number; `NO_THREAD` in a thread that serves no call."""
        return self._callers.thread_id() if self._callers.may_leave.is_on else NO_THREAD

    def _recheck_file(self, prefix: str, entry: str) -> Node | None:
        asked_at = self.cache.now()
        try:
            info = self._store.head(prefix + entry)
        except NotFound:
            return self._ask(prefix, entry)
        node = Node(info, is_directory=is_directory_marker(info))
        return self.cache.record_answer(prefix, entry, node, asked_at)

    def _list(self, path: str, prefix: str) -> dict[str, Node]:
        asked_at = self.cache.now()
        nodes: dict[str, Node] = {}
        hidden: dict[str, str] = {}
        for page in pages_of(self._store, prefix, delimiter="/"):
            self._collect(page, prefix, nodes, hidden)
        if not nodes and not self.node(path).is_directory:
            raise NotADirectory(f"{path}: not a directory")
        return self._record_listing(prefix, nodes, hidden, asked_at)

    def _list_small(self, prefix: str) -> dict[str, Node] | None:
        """List a directory if it is small; remember that it is not otherwise."""
        asked_at = self.cache.now()
        page = self._store.list_page(prefix, delimiter="/", max_results=SMALL_DIRECTORY)
        nodes: dict[str, Node] = {}
        hidden: dict[str, str] = {}
        self._collect(page, prefix, nodes, hidden)
        if page.next_marker:
            self.cache.mark_large(prefix)
            return None
        return self._record_listing(prefix, nodes, hidden, asked_at)

    def _offer(self, directory: Gathered, walk: Walk | None) -> None:
        nodes: dict[str, Node] = {}
        hidden: dict[str, str] = {}
        self._collect(ListPage(directory.blobs, directory.prefixes, ""), directory.prefix, nodes, hidden)
        with self._lock:
            self._hidden[directory.prefix] = hidden
        self.cache.offer_listing(directory.prefix, nodes, directory.asked_at, walk)

    def _record_listing(
        self, prefix: str, nodes: dict[str, Node], hidden: dict[str, str], asked_at: float
    ) -> dict[str, Node]:
        with self._lock:
            self._hidden[prefix] = hidden
        return self.cache.record_listing(prefix, nodes, asked_at)

    def _ask(self, prefix: str, entry: str) -> Node | None:
        """Ask the service for one name as a blob and as a directory; one request nearly always."""
        name = prefix + entry
        asked_at = self.cache.now()
        page = self._store.list_page(name, delimiter="/", max_results=NEIGHBOURS)
        blob = next((blob for blob in page.blobs if blob.name == name), None)
        is_directory = name + "/" in page.prefixes or (blob is not None and is_directory_marker(blob))
        if not is_directory and page.next_marker:
            below = self._store.list_page(name + "/", max_results=1)
            is_directory = bool(below.blobs)
        if blob is None and not is_directory:
            return self.cache.record_answer(prefix, entry, None, asked_at)
        node = self._merged(blob, is_directory, name, {})
        return self.cache.record_answer(prefix, entry, node, asked_at)

    def _collect(self, page: ListPage, prefix: str, nodes: dict[str, Node], hidden: dict[str, str]) -> None:
        for blob in page.blobs:
            if blob.name == prefix:
                if not is_directory_marker(blob):
                    self._report(blob.name, "its name ends with a slash", hidden)
                continue  # otherwise a marker in the old style: the directory itself
            entry = self._shown(blob.name, prefix, hidden)
            if entry is not None:
                known = nodes.get(entry)
                is_directory = is_directory_marker(blob) or (known is not None and known.is_directory)
                nodes[entry] = self._merged(blob, is_directory, blob.name, hidden)
        for name in page.prefixes:
            entry = self._shown(name, prefix, hidden)
            if entry is not None:
                known = nodes.get(entry)
                nodes[entry] = self._merged(known.blob if known else None, True, name[:-1], hidden)

    def _merged(self, blob: BlobInfo | None, is_directory: bool, name: str, hidden: dict[str, str]) -> Node:
        if is_directory and blob is not None and not is_directory_marker(blob):
            self._report(name, "a directory has the same name", hidden)
            blob = None
        return Node(blob, is_directory)

    def _shown(self, name: str, prefix: str, hidden: dict[str, str]) -> str | None:
        entry = NameMap.entry_of(name, prefix)
        if entry is None:
            self._report(name, refusal(name[len(prefix) :].rstrip("/")) or "an empty path component", hidden)
        return entry

    def _report(self, name: str, reason: str, hidden: dict[str, str]) -> None:
        hidden[name] = reason
        with self._lock:
            is_new = name not in self._reported
            self._reported[name] = True
        if is_new:
            logger.warning("blob %r is not shown: %s", name, reason)
