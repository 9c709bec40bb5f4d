"""The Blob service in memory, by the service's own rules, and stores and clocks that tests command.

`MemoryStore` passes the same contract suite as the production adapter (``contract/test_store.py``).
"""

import bisect
import copy
import hashlib
import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from blobfs.blocks import MAX_METADATA_BYTES, MAX_RANGE_WITH_MD5_BYTES, KiB, id_length
from blobfs.callers import Callers
from blobfs.content.checksums import Checksums
from blobfs.content.draft import ReadSpooled, nothing_spooled
from blobfs.content.fetcher import Fetcher
from blobfs.content.first_bytes import FirstBytes
from blobfs.content.memory import BufferPool
from blobfs.content.range_cache import RangeCache
from blobfs.content.reader import BlobReader
from blobfs.content.warming import Warming
from blobfs.content.writer import BlobWriter
from blobfs.errors import (
    AccessDenied,
    AlreadyExists,
    Archived,
    Changed,
    Damaged,
    Failure,
    InvalidArgument,
    InvalidName,
    NoSpace,
    NotFound,
    OtherIdLength,
    StagedGone,
    Unsupported,
)
from blobfs.filesystem.asked_ahead import AskedAhead
from blobfs.filesystem.commits import WriteBack
from blobfs.filesystem.early_opens import EarlyOpens
from blobfs.filesystem.files import File
from blobfs.filesystem.filesystem import Filesystem
from blobfs.filesystem.next_files import NextFiles
from blobfs.filesystem.own_writes import OwnWrites
from blobfs.filesystem.volume import Caller, Volume
from blobfs.format.attributes import Attributes, Defaults
from blobfs.format.names import NameMap
from blobfs.spool.journal import Journal, Unspooled
from blobfs.spool.records import Target
from blobfs.store import (
    BlobInfo,
    BlobKind,
    BlobStore,
    BlobVersion,
    CommittedBlock,
    Condition,
    ContentHeaders,
    ListPage,
    Properties,
)
from blobfs.transfers import Pool, Transfers
from blobfs.tree.cache import TreeCache
from blobfs.tree.copy_detector import CopyDetector
from blobfs.tree.namespace import Namespace

CALLER = Caller(uid=1000, gid=100)
DEFAULTS = Defaults.for_umask(CALLER.uid, CALLER.gid, 0o022)
NOBODY = Callers(lambda: 0, lambda: False)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """One blob as the service keeps it; `blocks` is None for one written whole."""

    info: BlobInfo
    body: bytes
    blocks: tuple[tuple[str, bytes], ...] | None = None


class MemoryStore:
    """A container in memory, by `blobfs.store.BlobStore`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._blobs: dict[str, StoredBlob] = {}
        self._names: list[str] = []  # of the blobs, sorted
        self._staged: dict[str, dict[str, bytes]] = {}
        self._etags = itertools.count(0x8D0000000000000)
        self.requests: Counter[str] = Counter()
        self.read_bytes = 0
        self.copies_ranges = True  # Azurite's like does not
        self.may_delete = True  # otherwise the credential does not allow it
        self.shows_rights = True  # the credential, as a SAS does

    # What tests look at and other clients do

    @property
    def bodies(self) -> dict[str, bytes]:
        """Every blob's bytes by name."""
        with self._lock:
            return {name: self._blobs[name].body for name in self._names}

    @property
    def staged(self) -> dict[str, set[str]]:
        """The ids of the uncommitted blocks by name."""
        with self._lock:
            return {name: set(blocks) for name, blocks in self._staged.items() if blocks}

    def put(self, name: str, body: bytes, metadata: Mapping[str, str] | None = None) -> BlobInfo:
        """Write a blob as another client would, not counted among the requests."""
        with self._lock:
            return self._keep(name, body, Properties(metadata or {}, content_md5=_md5(body)))

    def set_kind(self, name: str, kind: BlobKind = BlobKind.BLOCK, tier: str = "") -> None:
        """Make a blob one of another kind, or move it to another access tier."""
        with self._lock:
            blob = self._blobs[name]
            self._blobs[name] = replace(blob, info=blob.info._replace(kind=kind, tier=tier))

    # The port

    def list_page(
        self, prefix: str, *, delimiter: str = "", marker: str = "", max_results: int = 5000
    ) -> ListPage:
        """See `BlobStore.list_page`."""
        with self._lock:
            self.requests["LIST"] += 1
            entries = self._entries(prefix, delimiter, marker)
            shown = list(itertools.islice(entries, max_results))
            following, _ = next(entries, ("", False))
            blobs = [self._blobs[entry].info for entry, is_cut in shown if not is_cut]
            return ListPage(blobs, [entry for entry, is_cut in shown if is_cut], following)

    def head(self, name: str) -> BlobInfo:
        """See `BlobStore.head`."""
        with self._lock:
            self.requests["HEAD blob"] += 1
            return self._blob(name).info

    def read_range(
        self,
        name: str,
        start: int,
        into: memoryview,
        *,
        if_match: str = "",
        if_none_match: str = "",
        with_md5: bool = False,
    ) -> tuple[int, BlobInfo | None]:
        """See `BlobStore.read_range`. Memory does not damage bytes."""
        assert not with_md5 or len(into) <= MAX_RANGE_WITH_MD5_BYTES
        with self._lock:
            self.requests["GET blob"] += 1
            if if_match and (name not in self._blobs or self._blobs[name].info.etag != if_match):
                raise Changed(f"{name}: the blob was replaced")
            blob = self._blob(name)
            if if_none_match == blob.info.etag:
                return 0, None
            piece = blob.body[start : start + len(into)]
            self.read_bytes += len(piece)
        if blob.info.tier == "Archive":
            raise Archived(f"{name}: set its tier to Hot")
        into[: len(piece)] = piece
        return len(piece), blob.info._replace(tier="")

    def put_blob(
        self, name: str, body: memoryview | bytes, properties: Properties, condition: Condition
    ) -> BlobInfo:
        """See `BlobStore.put_blob`."""
        with self._lock:
            self.requests["PUT blob"] += 1
            if properties.content_md5 is not None and properties.content_md5 != _md5(body):
                raise Damaged(f"{name}: the bytes did not match their checksum, twice")
            _check(name, properties.metadata)
            self._check_condition(name, condition)
            return self._keep(name, bytes(body), properties._replace(content_md5=_md5(body)))

    def stage_block(self, name: str, block_id: str, body: memoryview | bytes, md5: bytes) -> None:
        """See `BlobStore.stage_block`."""
        with self._lock:
            self.requests["PUT block"] += 1
            if md5 != _md5(body):
                raise Damaged(f"{name}: the bytes did not match their checksum, twice")
            self._stage(name, block_id, bytes(body))

    def stage_range(self, source: BlobVersion, start: int, length: int, name: str, block_id: str) -> bool:
        """See `BlobStore.stage_range`."""
        with self._lock:
            if not self.copies_ranges:
                return False
            self.requests["PUT block from URL"] += 1
            blob = self._blob(source.name)
            if blob.info.etag != source.etag:
                raise Changed(f"{source.name}: the blob was replaced")
            self._stage(name, block_id, blob.body[start : start + length])
            return True

    def uncommitted_ids(self, name: str) -> Sequence[str]:
        """See `BlobStore.uncommitted_ids`."""
        with self._lock:
            self.requests["GET block list"] += 1
            return list(self._staged.get(name, {}))

    def commit_blocks(
        self,
        name: str,
        block_ids: Sequence[str],
        properties: Properties,
        condition: Condition,
        size_bytes: int,
    ) -> BlobInfo:
        """See `BlobStore.commit_blocks`."""
        with self._lock:
            self.requests["PUT block list"] += 1
            _check(name, properties.metadata)
            self._check_condition(name, condition)
            known = dict(self._committed(name)) | self._staged.get(name, {})
            if not all(block_id in known for block_id in block_ids):
                raise StagedGone(f"{name}: staged blocks are gone")
            if len({id_length(block_id) for block_id in block_ids}) > 1:
                raise InvalidArgument(f"{name}: ids of different lengths")
            blocks = tuple((block_id, known[block_id]) for block_id in block_ids)
            body = b"".join(block for _, block in blocks)
            assert len(body) == size_bytes
            return self._keep(name, body, properties, blocks)

    def drop_staged(self, name: str) -> None:
        """Forget what is staged and not committed, as the service does after a week."""
        with self._lock:
            self._staged.pop(name, None)

    def committed_blocks(self, version: BlobVersion) -> Sequence[CommittedBlock]:
        """See `BlobStore.committed_blocks`. Of a blob without blocks the service does not tell the ETag."""
        with self._lock:
            self.requests["GET block list"] += 1
            if version.name not in self._blobs:
                raise Changed(f"{version.name}: the blob was removed")
            blob = self._blob(version.name)
            if blob.blocks and blob.info.etag != version.etag:
                raise Changed(f"{version.name}: the blob was replaced")
            return [CommittedBlock(block_id, len(body)) for block_id, body in blob.blocks or ()]

    def set_metadata(self, version: BlobVersion, metadata: Mapping[str, str]) -> str:
        """See `BlobStore.set_metadata`."""
        with self._lock:
            self.requests["PUT metadata"] += 1
            blob = self._blob(version.name)
            if blob.info.etag != version.etag:
                raise Changed(f"{version.name}: the blob was replaced")
            _check(version.name, metadata)
            info = self._stamped(blob.info)._replace(metadata=dict(metadata))
            self._blobs[version.name] = replace(blob, info=info)
            return info.etag

    def copy(
        self, source: BlobInfo, name: str, metadata: Mapping[str, str], condition: Condition
    ) -> BlobInfo:
        """See `BlobStore.copy`."""
        with self._lock:
            self.requests["PUT copy"] += 1
            original = self._blob(source.name)
            if original.info.etag != source.etag:
                raise Changed(f"{source.name}: the blob to copy was replaced")
            _check(name, metadata)
            self._check_condition(name, condition)
            properties = Properties(metadata, original.info.headers, original.info.content_md5)
            return self._keep(name, original.body, properties, original.blocks, original.info.kind)

    def delete(self, name: str, condition: Condition) -> None:
        """See `BlobStore.delete`."""
        with self._lock:
            self.requests["DELETE blob"] += 1
            if not self.may_delete:
                raise AccessDenied(f"{name}: the service refuses this")
            self._blob(name)
            self._check_condition(name, condition)
            self._remove(name)

    def check_may_delete(self, name: str) -> None:
        """See `BlobStore.check_may_delete`."""
        if self.shows_rights and not self.may_delete:
            raise AccessDenied(f"{name}: the credential lacks the permission d")

    def delete_batch(self, versions: Sequence[BlobVersion]) -> Sequence[BlobVersion]:
        """See `BlobStore.delete_batch`."""
        with self._lock:
            self.requests["POST batch"] += 1
            if not self.may_delete:
                return versions
            left = []
            for version in versions:
                if version.name in self._blobs and self._blobs[version.name].info.etag == version.etag:
                    self._remove(version.name)
                else:
                    left.append(version)
            return left

    # The service's rules; the caller holds the lock

    def _entries(self, prefix: str, delimiter: str, marker: str) -> Iterator[tuple[str, bool]]:
        """Yield names from `marker` on, in order, and whether each was cut at a delimiter."""
        index = bisect.bisect_left(self._names, max(prefix, marker))
        last = ""
        while index < len(self._names) and self._names[index].startswith(prefix):
            head, cut, _ = self._names[index][len(prefix) :].partition(delimiter or "\0")
            entry = prefix + head + cut
            if entry != last:
                yield entry, bool(cut)
            last = entry
            index += 1

    def _blob(self, name: str) -> StoredBlob:
        _check(name, {})
        if name not in self._blobs:
            raise NotFound(f"{name}: no such blob")
        return self._blobs[name]

    def _stage(self, name: str, block_id: str, body: bytes) -> None:
        if name in self._blobs and self._blobs[name].info.kind is not BlobKind.BLOCK:
            raise Unsupported(f"{name}: not a block blob")
        staged = self._staged.setdefault(name, {})
        if any(id_length(other) != id_length(block_id) for other in staged):
            raise OtherIdLength(f"{name}: an unfinished upload has other ids")
        staged[block_id] = body

    def _committed(self, name: str) -> Sequence[tuple[str, bytes]]:
        return self._blobs[name].blocks or () if name in self._blobs else ()

    def _remove(self, name: str) -> None:
        del self._blobs[name]
        self._names.remove(name)
        self._staged.pop(name, None)

    def _check_condition(self, name: str, condition: Condition) -> None:
        blob = self._blobs.get(name)
        if condition.if_absent and blob is not None:
            raise AlreadyExists(f"{name}: the name is taken")
        if condition.if_match and (blob is None or blob.info.etag != condition.if_match):
            raise Changed(f"{name}: the blob was replaced")

    def _keep(
        self,
        name: str,
        body: bytes,
        properties: Properties,
        blocks: tuple[tuple[str, bytes], ...] | None = None,
        kind: BlobKind = BlobKind.BLOCK,
    ) -> BlobInfo:
        """Make this the blob. Whatever was staged under its name and not used is gone."""
        metadata, headers = dict(properties.metadata), properties.headers
        info = BlobInfo(name, "", len(body), 0, metadata, headers, properties.content_md5, kind)
        info = self._stamped(info)
        if name not in self._blobs:
            bisect.insort(self._names, name)
        self._blobs[name] = StoredBlob(info, body, blocks)
        self._staged.pop(name, None)
        return info

    def _stamped(self, info: BlobInfo) -> BlobInfo:
        seconds = time.time_ns() // 10**9
        return info._replace(etag=f"0x{next(self._etags):X}", modified_ns=seconds * 10**9)


class FailingStore:
    """Passes calls on to another store, except those it was told to fail.

    `on_call` is called with each method's name before the call goes on; it may block.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._lock = threading.Lock()  # guards `calls`
        self.calls: list[str] = []
        self.on_call: Callable[[str], None] = lambda _method: None
        self._failure: Failure | None = None
        self._number = -1
        self._methods: tuple[str, ...] = ()
        self._carried_out = False
        self.check_may_delete = store.check_may_delete  # no call to the service

    def fail_call(self, number: int, failure: Failure, *, carried_out: bool = False) -> None:
        """Fail one call, counted from 0 and from now; `carried_out` if only its answer is lost."""
        self.heal()
        self._failure, self._number, self._carried_out = failure, number, carried_out

    def fail_method(self, method: str, failure: Failure, *, carried_out: bool = False) -> None:
        """Fail every call of a method from now on; `carried_out` if only its answer is lost."""
        self.heal()
        self._failure, self._methods, self._carried_out = failure, (method,), carried_out

    def fail_commits(self, failure: Failure, *, carried_out: bool = False) -> None:
        """Fail everything that makes or replaces a blob's bytes, in the same way."""
        self.heal()
        self._failure, self._methods, self._carried_out = failure, ("put_blob", "commit_blocks"), carried_out

    def heal(self) -> None:
        """Fail nothing any more, and count calls from 0 again."""
        self.calls.clear()
        self._failure, self._number, self._methods, self._carried_out = None, -1, (), False

    def __getattr__(self, method: str) -> Any:
        target = getattr(self._store, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                number = len(self.calls)
                self.calls.append(method)
                failure = self._failure if method in self._methods or number == self._number else None
            self.on_call(method)
            if failure is not None and self._carried_out:
                failure.may_be_done = True
            if failure is not None and not self._carried_out:
                raise copy.copy(failure)  # one that is kept would keep alive all that saw it
            result = target(*args, **kwargs)
            if failure is not None:
                raise copy.copy(failure)
            return result

        return call if callable(target) else target


class ManualClock:
    """A clock in seconds that stands still unless a test moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


class InlinePool(Pool):
    """Runs each task to its end before `submit` returns, so that a test repeats exactly."""

    def submit(self, task: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run the task."""
        future: Future[Any] = Future()
        try:
            future.set_result(task(*args, **kwargs))
        except BaseException as failure:
            future.set_exception(failure)
        return future


def inline_pools(names: Iterable[str]) -> dict[str, Pool]:
    """Return such a pool by each name."""
    return {name: InlinePool(1, name) for name in names}


class ManualTransfers(Transfers):
    """Real threads, or none if `inline`; what is to happen later happens when a test says so."""

    def __init__(self, *, reads: int, writes: int, inline: bool) -> None:
        super().__init__(reads=reads, writes=writes)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._inline = inline

    def start(self) -> None:
        """Make the pools."""
        if self._inline:
            self._pools = inline_pools(self._sizes)
        else:
            super().start()

    def run_after(self, seconds: float, task: Callable[[], None]) -> None:
        """Keep the task for `run_later`."""
        self._later.append((seconds, task))

    def run_in_background(self, task: Callable[[], None]) -> None:
        """Keep the task for `run_later`."""
        self.run_after(0.0, task)

    def run_later(self, within_seconds: float = 60.0) -> None:
        """Run what was put off by at most so long."""
        for task in self.take_due(within_seconds):
            task()

    def take_due(self, within_seconds: float = 60.0) -> list[Callable[[], None]]:
        """Return what was put off by at most so long, for the test to run."""
        due = [task for seconds, task in self._later if seconds <= within_seconds]
        self._later = [(seconds, task) for seconds, task in self._later if seconds > within_seconds]
        return due


class InlineTransfers(Transfers):
    """Does all work at once, without threads, and need not be started or closed."""

    def __init__(self) -> None:
        super().__init__(reads=1, writes=1)
        self._pools = inline_pools(self._sizes)


@dataclass(frozen=True, slots=True)
class Machine:
    """The parts that one mount's reading and writing is made of."""

    store: OwnWrites
    transfers: ManualTransfers
    pool: BufferPool
    cache: RangeCache
    fetcher: Fetcher
    reader: BlobReader
    first_bytes: FirstBytes
    warming: Warming
    block_bytes: int
    largest_block_bytes: int
    file_md5: bool = True
    make_journal: Callable[[Callable[[], Target]], Journal] = Unspooled

    def writer(
        self, name: str, base: BlobInfo | None = None, read_spooled: ReadSpooled = nothing_spooled
    ) -> BlobWriter:
        """Return a writer for a blob, or for a new one."""
        return BlobWriter(
            name,
            base,
            store=self.store,
            transfers=self.transfers,
            pool=self.pool,
            reader=self.reader,
            block_bytes=self.block_bytes,
            largest_block_bytes=self.largest_block_bytes,
            file_md5=self.file_md5,
            read_spooled=read_spooled,
        )

    def file(self, name: str, inode: int, base: BlobInfo | None, attributes: Attributes) -> File:
        """Return a file whose content type says that tests made it."""
        return File(
            name,
            inode,
            base,
            attributes,
            store=self.store,
            reader=self.reader,
            make_writer=self.writer,
            guess_headers=lambda _: ContentHeaders("test/made"),
            make_journal=self.make_journal,
        )


@contextmanager
def machine(
    store: BlobStore,
    *,
    block_bytes: int = 8,
    largest_block_bytes: int = 1 << 20,
    budget_bytes: int = 64 << 20,
    capacity_bytes: int | None = None,
    fragment_bytes: int = 4,
    portion_bytes: int | None = None,
    sequential_bytes: int = 32,
    mid_file_sequential_bytes: int = 32,
    ahead_blocks: int = 2,
    reads: int = 4,
    writes: int = 4,
    inline: bool = False,
    verify: str = "blocks",
) -> Iterator[Machine]:
    """Put the parts of one mount together, with small numbers, and stop its threads at the end."""
    transfers = ManualTransfers(reads=reads, writes=writes, inline=inline)
    pool = BufferPool(budget_bytes)
    fetcher = Fetcher(store, None, range_md5=verify == "all", attempts=3)
    capacity_bytes = budget_bytes // 2 if capacity_bytes is None else capacity_bytes
    cache = RangeCache(
        fetcher, pool, fragment_bytes=fragment_bytes, capacity_bytes=capacity_bytes, smallest_bytes=1
    )
    unit_bytes = max(block_bytes, fragment_bytes)
    checksums = Checksums(store, enabled=verify != "off", unit_bytes=unit_bytes, largest_bytes=1 << 20)
    reader = BlobReader(
        cache,
        checksums,
        fetcher,
        transfers,
        block_bytes=unit_bytes,
        portion_bytes=portion_bytes or unit_bytes,
        whole_bytes=sequential_bytes,
        sequential_bytes=sequential_bytes,
        mid_file_sequential_bytes=mid_file_sequential_bytes,
        tolerance_bytes=fragment_bytes,
        most_tolerance_bytes=fragment_bytes,
        ahead_blocks=ahead_blocks,
    )
    transfers.start()
    try:
        own = OwnWrites(store)
        yield Machine(
            own,
            transfers,
            pool,
            cache,
            fetcher,
            reader,
            FirstBytes(cache, checksums, fetcher, whole_bytes=sequential_bytes),
            Warming(cache, checksums, fetcher),
            block_bytes,
            largest_block_bytes,
        )
    finally:
        transfers.close()


def filesystem_of(
    parts: Machine,
    clock: ManualClock,
    *,
    prefix: str = "",
    read_only: bool = False,
    callers: Callers = NOBODY,
    write_back: WriteBack | None = None,
    ttl_seconds: float = 1.0,
    close_to_open: bool = True,
) -> Filesystem:
    """Return a filesystem on the parts of one mount; names are believed for a second or so of `clock`."""
    cache = TreeCache(ttl_seconds=ttl_seconds, capacity_bytes=1 << 20, now=clock)
    names = NameMap(prefix, 1024)
    volume = Volume(
        store=parts.store,
        namespace=Namespace(parts.store, cache, names, parts.transfers, callers, close_to_open=close_to_open),
        copy_detector=CopyDetector(within_seconds=ttl_seconds, program=callers.program, now=clock),
        reader=parts.reader,
        first_bytes=parts.first_bytes,
        warming=parts.warming,
        transfers=parts.transfers,
        defaults=DEFAULTS,
        read_only=read_only,
        make_file=parts.file,
    )
    parts.pool.add_reclaimer(volume.files.release_memory)
    asked = AskedAhead(volume, callers)
    next_files = NextFiles(
        volume,
        callers,
        asked,
        open_bytes=64 * KiB,
        whole_bytes=256 * KiB,
        ahead_files=4,
        within_seconds=ttl_seconds,
    )
    early_opens = EarlyOpens(volume, callers, asked, open_bytes=64 * KiB)
    return Filesystem(volume, next_files, early_opens, open_bytes=64 * KiB, write_back=write_back)


_METADATA_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_METADATA_VALUE = re.compile(r"[ -~]*")


def _check(name: str, metadata: Mapping[str, str]) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidName(f"{name!r}: not Unicode") from None
    for key, value in metadata.items():
        if not _METADATA_KEY.fullmatch(key) or not _METADATA_VALUE.fullmatch(value):
            raise InvalidArgument(f"{name}: no header can carry {key}={value!r}")
    if sum(len(key) + len(value) for key, value in metadata.items()) > MAX_METADATA_BYTES:
        raise NoSpace(f"{name}: more than {MAX_METADATA_BYTES} bytes of metadata")


def _md5(body: memoryview | bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()
