"""The port, implemented for the Blob service: one method each, and recognising what was already done."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

from blobfs.azure.access import Access, access_of
from blobfs.azure.batch import REFUSALS, statuses_of
from blobfs.azure.client import Client, Dealings
from blobfs.azure.inspection import Inspector
from blobfs.azure.listing import parse_page
from blobfs.azure.messages import (
    Request,
    base64_text,
    blob_info,
    block_list_xml,
    blocks_of,
    condition_headers,
    etag_of,
    metadata_headers,
    property_headers,
    quoted,
    unquoted,
    written_info,
)
from blobfs.azure.replies import (
    ACCEPTED,
    is_written,
    require_deleted,
    require_md5,
    require_span,
    require_staged,
    require_there,
)
from blobfs.blocks import md5_digest
from blobfs.errors import Changed, Failure, Unavailable
from blobfs.store import (
    ALWAYS,
    BlobInfo,
    BlobVersion,
    CommittedBlock,
    Condition,
    ListPage,
    Properties,
    same_metadata,
)

PROBE_SECONDS = 5.0  # a mount command says within seconds what is wrong
BATCH_PAUSE_SECONDS = 600.0  # after a refusal, which may have been a passing one
COPY_POLL_SECONDS = (0.1, 5.0)  # first and longest wait; within one account copies are nearly always instant

_CONFLICTS = frozenset((409, 412))


class AzureStore:
    """One container, by `blobfs.store.BlobStore`. Connects with the first request."""

    def __init__(
        self, client: Client, *, sleep: Callable[[float], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._sleep = sleep
        self._now = now
        self._refuses_ranges = False  # Put Block From URL, as was seen once
        self._no_batch_before = -math.inf  # since one was refused

    @property
    def requests(self) -> Mapping[str, int]:
        """How many requests of each kind were sent, repeated ones included."""
        return self._client.requests.totals()

    @property
    def origin(self) -> str:
        """Scheme and host of the service."""
        return self._client.origin

    def inspector(self) -> Inspector:
        """Return what can ask about the container over the same connections."""
        return Inspector(self._client)

    def dealings(self) -> Dealings:
        """Return what was counted until now. Sends nothing."""
        return self._client.dealings()

    def signed_url(self, name: str) -> str:
        """Return an address by which the service itself can read the blob. It is a secret."""
        return self._client.signed_url(name)

    def probe(self, *, within_seconds: float = PROBE_SECONDS) -> Access:
        """Check that the container answers, by listing one blob, and return what the credential allows.

        A listing, because the SAS of a container may not read the container's properties.
        Raises NotFound (no container), AccessDenied, TimedOut, Unavailable.
        """
        self._client.call(_list_request("", max_results=1), within_seconds=within_seconds)
        credential = self._client.credential
        return access_of(credential.authorization(), credential.name)

    def create_container(self) -> None:
        """Create the container unless it exists. Raises AccessDenied, Busy, TimedOut, Unavailable."""
        request = Request("PUT container", "PUT", query={"restype": "container"})
        reply = self._client.ask(request, within_seconds=PROBE_SECONDS)
        if reply.error_code != "ContainerAlreadyExists":
            self._client.check(request, reply)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def list_page(
        self, prefix: str, *, delimiter: str = "", marker: str = "", max_results: int = 5000
    ) -> ListPage:
        """See `BlobStore.list_page`."""
        request = _list_request(prefix, delimiter=delimiter, marker=marker, max_results=max_results)
        return parse_page(self._client.call(request).body)

    def head(self, name: str) -> BlobInfo:
        """See `BlobStore.head`."""
        return blob_info(name, self._client.call(Request("HEAD blob", "HEAD", name)).headers)

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
        """See `BlobStore.read_range`. The service does not tell the tier here."""
        conditions = _read_conditions(if_match, if_none_match)
        if not into:
            return 0, self._info_unless(name, conditions)
        span = {"x-ms-range": f"bytes={start}-{start + len(into) - 1}"}
        if with_md5:
            span["x-ms-range-get-content-md5"] = "true"
        request = Request("GET blob", "GET", name, headers={**span, **conditions}, into=into)
        reply = self._client.ask(request)
        if reply.status == 304:
            return 0, None
        if reply.status == 416:  # nothing there: an empty blob, or a start beyond the end
            return 0, self._info_unless(name, conditions)
        if if_match:
            require_there(name, reply)
        self._client.check(request, reply)
        info = blob_info(name, reply.headers)
        position = start + reply.skipped_bytes
        require_span(reply.headers, position, reply.received_bytes, info)
        if with_md5:
            require_md5(reply.headers, start, into[: reply.received_bytes], name)
        return reply.skipped_bytes + reply.received_bytes, info

    def put_blob(
        self, name: str, body: memoryview | bytes, properties: Properties, condition: Condition
    ) -> BlobInfo:
        """See `BlobStore.put_blob`."""
        size_bytes = memoryview(body).nbytes
        md5 = properties.content_md5
        headers = {
            "x-ms-blob-type": "BlockBlob",
            **({"Content-MD5": base64_text(md5)} if md5 else {}),
            **property_headers(properties),
            **condition_headers(condition),
        }
        request = Request("PUT blob", "PUT", name, headers=headers, body=body)

        def landed(info: BlobInfo) -> bool:
            # The service stores the checksum of every Put Blob, given or not.
            expected = md5 or md5_digest(body)
            return info.content_md5 == expected and is_written(info, size_bytes, properties.metadata)

        return written_info(name, self._write(request, landed), size_bytes, properties)

    def stage_block(self, name: str, block_id: str, body: memoryview | bytes, md5: bytes) -> None:
        """See `BlobStore.stage_block`."""
        query = {"comp": "block", "blockid": block_id}
        headers = {"Content-MD5": base64_text(md5)}
        request = Request("PUT block", "PUT", name, query=query, headers=headers, body=body)
        require_staged(name, self._client.call(request))

    def stage_range(self, source: BlobVersion, start: int, length: int, name: str, block_id: str) -> bool:
        """See `BlobStore.stage_range`."""
        if self._refuses_ranges:
            return False
        headers = {
            **self._client.source_headers(source.name),
            "x-ms-source-range": f"bytes={start}-{start + length - 1}",
            "x-ms-source-if-match": quoted(source.etag),
        }
        query = {"comp": "block", "blockid": block_id}
        request = Request("PUT block from URL", "PUT", name, query=query, headers=headers)
        reply = self._client.ask(request)
        # Azurite does not know the operation; a firewall may keep the service from reading itself.
        if reply.status == 501 or reply.error_code == "CannotVerifyCopySource":
            self._refuses_ranges = reply.status != 404  # that is only about this source
            return False
        self._client.check(request, reply)
        require_staged(name, reply)
        return True

    def uncommitted_ids(self, name: str) -> Sequence[str]:
        """See `BlobStore.uncommitted_ids`."""
        query = {"comp": "blocklist", "blocklisttype": "uncommitted"}
        request = Request("GET block list", "GET", name, query=query)
        reply = self._client.ask(request)
        if reply.error_code == "BlobNotFound":
            return []
        self._client.check(request, reply)
        return [block.block_id for block in blocks_of(reply.body, "UncommittedBlocks")]

    def commit_blocks(
        self,
        name: str,
        block_ids: Sequence[str],
        properties: Properties,
        condition: Condition,
        size_bytes: int,
    ) -> BlobInfo:
        """See `BlobStore.commit_blocks`."""
        body = block_list_xml(block_ids)
        headers = {
            "Content-MD5": base64_text(md5_digest(body)),
            **property_headers(properties),
            **condition_headers(condition),
        }
        query = {"comp": "blocklist"}
        request = Request("PUT block list", "PUT", name, query=query, headers=headers, body=body)

        def landed(info: BlobInfo) -> bool:
            same = info.content_md5 == properties.content_md5
            if not (same and is_written(info, size_bytes, properties.metadata)):
                return False
            return [block.block_id for block in self.committed_blocks(info.version)] == list(block_ids)

        return written_info(name, self._write(request, landed), size_bytes, properties)

    def committed_blocks(self, version: BlobVersion) -> Sequence[CommittedBlock]:
        """See `BlobStore.committed_blocks`."""
        query = {"comp": "blocklist", "blocklisttype": "committed"}
        request = Request("GET block list", "GET", version.name, query=query)
        reply = self._client.ask(request)
        require_there(version.name, reply)
        self._client.check(request, reply)
        # The operation knows no If-Match, and tells the ETag only of a blob that has blocks.
        if unquoted(reply.headers.get("etag", version.etag)) != version.etag:
            raise Changed(f"{version.name}: the blob was replaced by somebody else")
        return blocks_of(reply.body, "CommittedBlocks")

    def set_metadata(self, version: BlobVersion, metadata: Mapping[str, str]) -> str:
        """See `BlobStore.set_metadata`."""
        headers = {"If-Match": quoted(version.etag), **metadata_headers(metadata)}
        request = Request("PUT metadata", "PUT", version.name, query={"comp": "metadata"}, headers=headers)
        answer = self._write(request, lambda info: same_metadata(info.metadata, metadata))
        return etag_of(version.name, answer)

    def copy(
        self, source: BlobInfo, name: str, metadata: Mapping[str, str], condition: Condition
    ) -> BlobInfo:
        """See `BlobStore.copy`."""
        return self.copy_from(self, source, name, metadata, condition)

    def copy_from(
        self,
        origin: "AzureStore",
        source: BlobInfo,
        name: str,
        metadata: Mapping[str, str],
        condition: Condition,
    ) -> BlobInfo:
        """Copy a blob as `copy` does, from another container of the same account."""
        headers = {
            "x-ms-copy-source": origin.signed_url(source.name),
            "x-ms-source-if-match": quoted(source.etag),
            **metadata_headers(metadata),
            **condition_headers(condition),
        }
        request = Request("PUT copy", "PUT", name, headers=headers)

        def landed(info: BlobInfo) -> bool:
            same = info.content_md5 == source.content_md5
            return same and is_written(info, source.size_bytes, metadata)

        answer = self._write(request, landed)
        if answer.get("x-ms-copy-status") == "success" and metadata:
            # The service says that it is complete, and of exactly this version: nothing is left to ask.
            made = written_info(name, answer, source.size_bytes, Properties(metadata, source.headers))
            return made._replace(content_md5=source.content_md5, kind=source.kind, tier=source.tier)
        info = self._completed_copy(name, answer.get("x-ms-copy-id", ""))
        if info.size_bytes != source.size_bytes:
            sizes = f"{info.size_bytes} bytes instead of {source.size_bytes}"
            raise Unavailable(f"{name}: the copy of {source.name} has {sizes}")
        return self._with_metadata(info, metadata)

    def delete(self, name: str, condition: Condition) -> None:
        """See `BlobStore.delete`."""
        request = _delete_request(name, condition)
        reply = self._client.ask(request)
        if reply.doubtful and not reply.ok and self._is_gone(name):
            return
        self._client.check(request, reply)
        require_deleted(name, reply)

    def check_may_delete(self, name: str) -> None:
        """See `BlobStore.check_may_delete`."""
        self._client.check_permission(_delete_request(name, ALWAYS))

    def delete_batch(self, versions: Sequence[BlobVersion]) -> Sequence[BlobVersion]:
        """See `BlobStore.delete_batch`. It is tried once: what is left is tried again one by one."""
        if self._now() < self._no_batch_before:
            return versions
        requests = [_delete_request(version.name, Condition(if_match=version.etag)) for version in versions]
        statuses = statuses_of(self._client.ask_batch(requests), len(versions))
        if not REFUSALS.isdisjoint(statuses):
            self._no_batch_before = self._now() + BATCH_PAUSE_SECONDS
        return [
            version
            for version, status in zip(versions, statuses, strict=True)
            if not self._was_deleted(version, status)
        ]

    def _write(self, request: Request, landed: Callable[[BlobInfo], bool]) -> Mapping[str, str]:
        """Send a write; return the headers of its reply, or of the HEAD that shows it done already.

        A write whose reply was lost and whose repetition meets its own result is not a conflict:
        `landed` says whether the blob is what the write makes.
        """
        reply = self._client.ask(request)
        if reply.doubtful and reply.status in _CONFLICTS:
            try:
                found = self._client.ask(Request("HEAD blob", "HEAD", request.name))
            except Failure as failure:
                failure.may_be_done = True
                raise
            if found.ok and landed(blob_info(request.name, found.headers)):
                return found.headers
        self._client.check(request, reply)
        return reply.headers

    def _was_deleted(self, version: BlobVersion, status: int) -> bool:
        """Tell whether a deletion with this status was carried out; repeat it where the status does not tell.

        To ask whether the blob is there would not do: its deletion may still be under way.
        """
        if status == ACCEPTED or 400 <= status < 500:
            return status == ACCEPTED
        reply = self._client.ask(_delete_request(version.name, Condition(if_match=version.etag)))
        return reply.status == ACCEPTED or self._is_gone(version.name)

    def _is_gone(self, name: str) -> bool:
        return self._client.ask(Request("HEAD blob", "HEAD", name)).error_code == "BlobNotFound"

    def _info_unless(self, name: str, conditions: Mapping[str, str]) -> BlobInfo | None:
        """Return the blob's properties; None if it still has the ETag that makes them uninteresting."""
        request = Request("HEAD blob", "HEAD", name, headers=conditions)
        reply = self._client.ask(request)
        if reply.status == 304:
            return None
        self._client.check(request, reply)
        return blob_info(name, reply.headers)

    def _completed_copy(self, name: str, copy_id: str) -> BlobInfo:
        """Wait until the service has finished the copy; return the blob.

        Raises Changed, Unavailable, Abandoned.
        """
        wait_seconds, longest_seconds = COPY_POLL_SECONDS
        while True:
            headers = self._client.call(Request("HEAD blob", "HEAD", name)).headers
            if headers.get("x-ms-copy-id", "") != copy_id:
                raise Changed(f"{name}: somebody else wrote here during the copy")
            status = headers.get("x-ms-copy-status", "")
            if status == "success":
                return blob_info(name, headers)
            if status != "pending":
                description = headers.get("x-ms-copy-status-description", "no reason given")
                raise Unavailable(f"{name}: the service's copy ended as {status or 'unknown'}: {description}")
            self._sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, longest_seconds)

    def _with_metadata(self, info: BlobInfo, metadata: Mapping[str, str]) -> BlobInfo:
        """Return the copy with this metadata: a copy asked for without any takes its source's."""
        if same_metadata(info.metadata, metadata):
            return info
        self.set_metadata(info.version, metadata)
        return self.head(info.name)


def _list_request(prefix: str, *, delimiter: str = "", marker: str = "", max_results: int) -> Request:
    query = {
        "restype": "container",
        "comp": "list",
        "include": "metadata",
        "maxresults": str(max_results),
        "prefix": prefix,
        "delimiter": delimiter,
        "marker": marker,
    }
    return Request("LIST", "GET", query={key: value for key, value in query.items() if value})


def _delete_request(name: str, condition: Condition) -> Request:
    headers = {"x-ms-delete-snapshots": "include", **condition_headers(condition)}
    return Request("DELETE blob", "DELETE", name, headers=headers)


def _read_conditions(if_match: str, if_none_match: str) -> dict[str, str]:
    wanted = {"If-Match": if_match, "If-None-Match": if_none_match}
    return {header: quoted(etag) for header, etag in wanted.items() if etag}
