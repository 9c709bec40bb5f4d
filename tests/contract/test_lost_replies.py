"""Writes that Azurite carried out and whose reply never arrived."""

import hashlib
import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from azurite import Azurite

from blobfs.azure.assembly import open_store
from blobfs.azure.store import AzureStore
from blobfs.blocks import digest_of
from blobfs.errors import Changed, NotFound
from blobfs.store import ALWAYS, IF_ABSENT, Condition, ContentHeaders, Properties

BODY = b"body"
PROPERTIES = Properties({"k": "v"}, ContentHeaders("a/b"), hashlib.md5(BODY).digest())


class LossyProxy(ThreadingHTTPServer):
    """Passes requests on to Azurite, and loses the reply to the next write when told so."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), LossyHandler)
        parts = urlsplit(endpoint)
        self.behind = parts.netloc
        self.endpoint = f"http://127.0.0.1:{self.server_port}{parts.path}"
        self.loses_next_write = False


class LossyHandler(BaseHTTPRequestHandler):
    server: LossyProxy
    protocol_version = "HTTP/1.1"

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(self.server.behind)
        connection.request(self.command, self.path, body, dict(self.headers))
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        if self.server.loses_next_write and self.command in ("PUT", "DELETE", "POST"):
            self.server.loses_next_write = False
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        self.send_response(reply.status)
        for key, value in reply.getheaders():
            if key.lower() not in ("transfer-encoding", "connection", "keep-alive", "content-length"):
                self.send_header(key, value)
        length = reply.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def proxy(azurite: Azurite) -> Iterator[LossyProxy]:
    with LossyProxy(azurite.endpoint) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def store(proxy: LossyProxy) -> Iterator[AzureStore]:
    opened = open_store(
        Azurite.account,
        "lossy",
        endpoint=proxy.endpoint,
        connections=2,
        total_seconds=30.0,
        first_wait_seconds=0.01,
        longest_wait_seconds=0.1,
        connect_seconds=5.0,
        read_seconds=30.0,
        stall_seconds=10.0,
    )
    opened.create_container()
    yield opened
    opened.close()


def test_new_blob_is_not_reported_as_taken_by_itself(store: AzureStore, proxy: LossyProxy) -> None:
    proxy.loses_next_write = True
    info = store.put_blob("put", BODY, PROPERTIES, IF_ABSENT)
    assert store.requests["PUT blob"] == 2
    assert info.etag == store.head("put").etag


def test_commit_is_not_reported_as_changed_by_itself(store: AzureStore, proxy: LossyProxy) -> None:
    digest = digest_of(BODY)
    first = store.put_blob("commit", b"", Properties(), ALWAYS)
    store.stage_block("commit", digest.block_id(), BODY, digest.md5)
    proxy.loses_next_write = True
    info = store.commit_blocks("commit", [digest.block_id()], PROPERTIES, Condition(if_match=first.etag), 4)
    assert store.requests["PUT block list"] == 2
    assert info.etag == store.head("commit").etag


def test_metadata_is_not_reported_as_changed_by_itself(store: AzureStore, proxy: LossyProxy) -> None:
    info = store.put_blob("metadata", BODY, PROPERTIES, ALWAYS)
    proxy.loses_next_write = True
    etag = store.set_metadata(info.version, {"new": "2"})
    assert store.requests["PUT metadata"] == 2
    assert etag == store.head("metadata").etag


def test_copy_is_not_reported_as_taken_by_itself(store: AzureStore, proxy: LossyProxy) -> None:
    source = store.put_blob("source", BODY, PROPERTIES, ALWAYS)
    proxy.loses_next_write = True
    info = store.copy(source, "target", {"new": "2"}, IF_ABSENT)
    assert store.requests["PUT copy"] == 2
    assert info == store.head("target")._replace(tier=info.tier)  # no reply to a write tells it


@pytest.mark.parametrize("pinned", [False, True])
def test_deleted_blob_is_not_reported_as_missing(store: AzureStore, proxy: LossyProxy, pinned: bool) -> None:
    info = store.put_blob("gone", BODY, PROPERTIES, ALWAYS)
    proxy.loses_next_write = True
    store.delete("gone", Condition(if_match=info.etag) if pinned else ALWAYS)
    with pytest.raises(NotFound):
        store.head("gone")


def test_other_program_that_came_between_is_reported(store: AzureStore, proxy: LossyProxy) -> None:
    info = store.put_blob("between", BODY, PROPERTIES, ALWAYS)
    other = store.put_blob("between", b"other", Properties(), ALWAYS)
    proxy.loses_next_write = True
    with pytest.raises(Changed):
        store.put_blob("between", BODY, PROPERTIES, Condition(if_match=info.etag))
    assert store.head("between").etag == other.etag


def test_batch_whose_reply_was_lost_has_deleted(store: AzureStore, proxy: LossyProxy) -> None:
    versions = [store.put_blob(name, BODY, PROPERTIES, ALWAYS).version for name in "ab"]
    kept = store.put_blob("c", BODY, PROPERTIES, ALWAYS)._replace(etag="0x1").version
    proxy.loses_next_write = True
    assert store.delete_batch([*versions, kept]) == [kept]
    proxy.loses_next_write = True
    assert store.delete_batch([kept]) == [kept]
    assert store.requests["POST batch"] == 2
