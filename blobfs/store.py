"""The port to an object store: what blobfs asks of the Blob service, and the values it gets back.

`BlobStore` has one production adapter (`blobfs.azure`). Every method blocks until the
service has answered, retries what can be retried, and raises only `blobfs.errors.Failure`.
Names are blob names without a leading ``/``; ETags are kept without their quotes, because
the service quotes them in headers and not in listings.

Values made for each request are tuples: a frozen dataclass takes twice as long to make, and more as a key.
"""

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from blobfs.blocks import MAX_LIST_RESULTS
from blobfs.errors import NotFound


class BlobKind(enum.Enum):
    """The service's blob types, by its own names."""

    BLOCK = "BlockBlob"
    PAGE = "PageBlob"
    APPEND = "AppendBlob"


NO_METADATA: Mapping[str, str] = {}
ReadBase = Callable[[int, memoryview], None]  # fills the view with a known blob's bytes, from an offset


@dataclass(frozen=True, slots=True)
class ContentHeaders:
    """The HTTP headers a blob carries besides its bytes. Empty means not set."""

    content_type: str = ""
    content_encoding: str = ""
    content_language: str = ""
    content_disposition: str = ""
    cache_control: str = ""


class BlobVersion(NamedTuple):
    """One content and one metadata of one name: what a reader is pinned to."""

    name: str
    etag: str


class BlobInfo(NamedTuple):
    """Everything the service tells about a blob without giving its bytes."""

    name: str
    etag: str
    size_bytes: int
    modified_ns: int  # Last-Modified: whole seconds, as nanoseconds since 1970
    metadata: Mapping[str, str] = NO_METADATA  # spelled as the service returned it
    headers: ContentHeaders = ContentHeaders()
    content_md5: bytes | None = None  # 16 bytes, of the whole blob
    kind: BlobKind = BlobKind.BLOCK
    tier: str = ""

    @property
    def version(self) -> BlobVersion:
        """The key under which this blob's bytes may be cached."""
        return BlobVersion(self.name, self.etag)


class ListPage(NamedTuple):
    """One page of a listing: blobs, then virtual directories as prefixes that end in ``/``."""

    blobs: Sequence[BlobInfo]
    prefixes: Sequence[str]
    next_marker: str  # empty on the last page; a page before it may be empty


class CommittedBlock(NamedTuple):
    """One entry of a blob's committed block list, in order."""

    block_id: str  # as the service gave it: base64, whoever made it
    size_bytes: int


class Condition(NamedTuple):
    """When a write may happen. At most one field is set; neither means unconditionally."""

    if_match: str = ""  # an ETag
    if_absent: bool = False


ALWAYS = Condition()
IF_ABSENT = Condition(if_absent=True)


def replacing(etag: str) -> Condition:
    """Return when a write may replace this version; with an empty ETag, only a name that is free."""
    return Condition(if_match=etag) if etag else IF_ABSENT


class Properties(NamedTuple):
    """What a commit stores beside the bytes. It replaces all that was there."""

    metadata: Mapping[str, str] = NO_METADATA
    headers: ContentHeaders = ContentHeaders()
    content_md5: bytes | None = None
    tier: str = ""  # Hot, Cool, Cold or Archive; empty: the account's default


def same_metadata(left: Mapping[str, str], right: Mapping[str, str]) -> bool:
    """Tell whether both are the same. Case does not matter in keys: the service may change it."""
    return _with_lower_keys(left) == _with_lower_keys(right)


class BlobStore(Protocol):
    """One container. Safe to call from many threads; create it after the last fork."""

    def list_page(
        self, prefix: str, *, delimiter: str = "", marker: str = "", max_results: int = 5000
    ) -> ListPage:
        """Return one page of the names that start with `prefix`, metadata included.

        With ``delimiter="/"`` names are cut after the next ``/`` and given as prefixes.
        """
        ...

    def head(self, name: str) -> BlobInfo:
        """Return the blob's properties. Raises NotFound."""
        ...

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
        """Fill `into` with the blob's bytes from `start` on; return how many there were, and the blob.

        Fewer than ``len(into)`` only at the blob's end. With `if_none_match` equal to the
        blob's ETag the answer is ``(0, None)`` and nothing is transferred.
        Raises Changed if the blob no longer has the ETag `if_match`, NotFound, Archived.
        With `with_md5`, for 4 MiB at most, Damaged if the bytes differ from those the service hashed.
        """
        ...

    def put_blob(
        self, name: str, body: memoryview | bytes, properties: Properties, condition: Condition
    ) -> BlobInfo:
        """Write a whole blob in one request; the service checks `properties.content_md5`.

        Raises AlreadyExists or Changed when the condition does not hold.
        """
        ...

    def stage_block(self, name: str, block_id: str, body: memoryview | bytes, md5: bytes) -> None:
        """Upload one uncommitted block; the service checks `md5` (16 bytes).

        Raises OtherIdLength if uncommitted blocks of the name have ids of another length.
        """
        ...

    def stage_range(self, source: BlobVersion, start: int, length: int, name: str, block_id: str) -> bool:
        """Let the service itself stage one uncommitted block, from a range of another blob or the same.

        Returns False, having staged nothing, where the service does not do that: then the bytes
        must be sent. Once it has refused for good, it is not asked again.
        Raises Changed if the source no longer is this version.
        """
        ...

    def uncommitted_ids(self, name: str) -> Sequence[str]:
        """Return the ids of the blocks that were staged under a name, by anybody, and not committed."""
        ...

    def commit_blocks(
        self,
        name: str,
        block_ids: Sequence[str],
        properties: Properties,
        condition: Condition,
        size_bytes: int,
    ) -> BlobInfo:
        """Make the blob exactly these blocks, staged or already committed, in this order.

        Raises AlreadyExists or Changed when the condition does not hold.
        """
        ...

    def committed_blocks(self, version: BlobVersion) -> Sequence[CommittedBlock]:
        """Return the block list; empty for a blob written by one Put Blob. Raises Changed."""
        ...

    def set_metadata(self, version: BlobVersion, metadata: Mapping[str, str]) -> str:
        """Replace the metadata and return the new ETag. Raises Changed."""
        ...

    def copy(
        self, source: BlobInfo, name: str, metadata: Mapping[str, str], condition: Condition
    ) -> BlobInfo:
        """Copy this version on the service, bytes and headers, with new metadata; return when it is complete.

        Blocks as long as the service's copy lasts, which for a large blob may be long. Raises Changed
        if the source changed or the condition on the target does not hold; Abandoned, after which the
        service goes on with a copy that it has begun.
        """
        ...

    def delete(self, name: str, condition: Condition) -> None:
        """Delete the blob and its snapshots. Raises NotFound or Changed."""
        ...

    def check_may_delete(self, name: str) -> None:
        """Raise AccessDenied if the credential shows, as it is now, that it may not delete this blob.

        For what must not be half done. Asks the service nothing; where a credential does not show
        what it may do, `delete` may be refused all the same.
        """
        ...

    def delete_batch(self, versions: Sequence[BlobVersion]) -> Sequence[BlobVersion]:
        """Delete these versions and their snapshots by one request; return those for `delete`.

        That is, all that were not deleted, for whatever reason: `delete` tells it, or does what
        this could not. At most `MAX_BATCH_REQUESTS`. After the service has refused one, it is
        not asked for a while.
        """
        ...


def head_or_none(store: BlobStore, name: str) -> BlobInfo | None:
    """Return a blob's properties, None if there is no such blob. Blocks for a request. Raises Failure."""
    try:
        return store.head(name)
    except NotFound:
        return None


def pages_of(
    store: BlobStore, prefix: str, *, delimiter: str = "", max_results: int = MAX_LIST_RESULTS
) -> Iterator[ListPage]:
    """Yield the pages of a listing; each blocks for a request. Raises Failure."""
    marker = ""
    while True:
        page = store.list_page(prefix, delimiter=delimiter, marker=marker, max_results=max_results)
        yield page
        marker = page.next_marker
        if not marker:
            return


def _with_lower_keys(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in metadata.items()}
