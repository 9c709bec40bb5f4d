"""What blobfs promises: each sentence of the README's section of that name, and what shows that it holds."""

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from azcopy import download, kept_by_azcopy, url_of
from azure.storage.blob import (
    BlobClient,
    ContainerClient,
    StandardBlobTier,
)
from azurite import Azurite
from mounts import PROJECT, Mount, Mounts, blobfs, on_both_bindings, shell
from responder.control import Responder
from responder.recipes import Recipe
from tokens import container_sas
from trees import make_tree, snapshot
from unix import refused

MiB = 1 << 20
BASE_BYTES = 80 * MiB  # the program, its libraries and their heaps, beside --memory; 50 MiB when idle

README_PROMISES = [
    "`close()` and `fsync()` return 0 only when the service has acknowledged every byte; otherwise they"
    " return an error, and so does every later attempt until it succeeds.",
    "Other clients see the old file or the new one, never a mixture: a reader stays with the version that"
    " it opened, and gets `ESTALE` when bytes of it are gone.",
    "What one node has closed, the next `open()` on another node sees, with default options.",
    "No update is lost silently: of two writers who change a file at the same time, the second to commit gets"
    " `ESTALE` (or `EEXIST` for a new name).",
    "Every block travels with its MD5, which the service checks; a file written from start to end also"
    " carries the MD5 of the whole.",
    "Modes, owners, times, symbolic links and empty directories survive copies, remounts and a round trip"
    " through AzCopy.",
    "`blobfs umount` succeeds only when nothing is unsent; otherwise it names the files.",
    "Memory stays within `--memory`; when it is used up, programs wait and do not fail.",
    "No secret appears on a command line, in a log, in an error message or in the status.",
    "The errno (the error number) tells what happened; the log names the blob and the remedy.",
]


def quotes(docstring: str | None, number: int) -> bool:
    """Tell whether a test's docstring is the promise of this number, from 1."""
    return " ".join((docstring or "").split()) == README_PROMISES[number - 1]


def test_the_readme_makes_these_promises_and_each_has_a_test() -> None:
    readme = " ".join((PROJECT / "README.md").read_text().split())
    assert [promise for promise in README_PROMISES if promise not in readme] == []
    tests = {name: test for name, test in globals().items() if re.match(r"test_promise_\d+", name)}
    for number in range(1, len(README_PROMISES) + 1):
        (test,) = [test for name, test in tests.items() if re.match(rf"test_promise_{number}_", name)]
        assert quotes(test.__doc__, number), f"promise {number}"


@pytest.fixture
def blobs(azurite: Azurite, container: str) -> Iterator[ContainerClient]:
    """The container as another program sees it."""
    with azurite.client() as client:
        yield client.get_container_client(container)


@pytest.fixture
def blob(blobs: ContainerClient) -> BlobClient:
    """The blob of the file "file"."""
    return blobs.get_blob_client("file")


@on_both_bindings
def test_promise_1_close_and_fsync_tell_the_truth(mount: Mounts, blob: BlobClient) -> None:
    """`close()` and `fsync()` return 0 only when the service has acknowledged every byte; otherwise they
    return an error, and so does every later attempt until it succeeds.
    """
    path = mount().path / "file"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"one")
    os.fsync(descriptor)
    assert blob.download_blob().readall() == b"one"

    os.write(descriptor, b", two")
    lease = blob.acquire_lease()
    duplicates = [os.dup(descriptor) for _ in range(2)]
    for _ in range(2):
        with refused(errno.EBUSY):
            os.fsync(descriptor)
    with refused(errno.EBUSY):
        os.close(duplicates[0])
    assert blob.download_blob().readall() == b"one"
    lease.release()
    os.close(duplicates[1])
    assert blob.download_blob().readall() == b"one, two"
    os.close(descriptor)


@on_both_bindings
def test_promise_2_nobody_sees_a_mixture(mount: Mounts, blob: BlobClient) -> None:
    """Other clients see the old file or the new one, never a mixture: a reader stays with the version that
    it opened, and gets `ESTALE` when bytes of it are gone.
    """
    old, new = b"old." * (5 * MiB), b"new!" * (5 * MiB)
    blob.upload_blob(old)
    path = mount().path / "file"
    reader = os.open(path, os.O_RDONLY)
    assert os.pread(reader, 4096, 0) == old[:4096]

    with (mount().path / "file").open("r+b", buffering=0) as writer:
        for start in range(0, len(new), MiB):
            writer.write(new[start : start + MiB])
        assert blob.download_blob().readall() == old
    assert blob.download_blob().readall() == new

    with refused(errno.ESTALE):
        for offset in range(0, len(old), 4096):
            assert os.pread(reader, 4096, offset) == old[:4096]
    os.close(reader)
    assert path.read_bytes() == new


@on_both_bindings
def test_promise_3_an_open_sees_what_was_closed(mount: Mounts, blob: BlobClient) -> None:
    """What one node has closed, the next `open()` on another node sees, with default options."""
    here, there = (mount().path / "file" for _ in range(2))
    for number in range(20):
        here.write_bytes(b"%d" % 7**number)
        assert there.read_bytes() == b"%d" % 7**number
        there.write_bytes(b"%d" % 3**number)
        assert here.read_bytes() == b"%d" % 3**number
    blob.upload_blob(b"from elsewhere", overwrite=True)
    assert here.read_bytes() == there.read_bytes() == b"from elsewhere"


@on_both_bindings
def test_promise_4_the_second_to_commit_is_told(mount: Mounts, blob: BlobClient) -> None:
    """No update is lost silently: of two writers who change a file at the same time, the second to commit
    gets `ESTALE` (or `EEXIST` for a new name).
    """
    mount.expect_log("was closed without being committed")
    mounted = mount()
    for number in (errno.EEXIST, errno.ESTALE):
        descriptor = os.open(mounted.path / "file", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, b"second")
        blob.upload_blob(b"first", overwrite=True)
        with refused(number):
            os.close(descriptor)
        assert blob.download_blob().readall() == b"first"
    (mounted.path / "file").write_bytes(b"after looking again")
    assert blob.download_blob().readall() == b"after looking again"


def test_promise_5_bytes_are_checked_on_their_way(mount: Mounts, blob: BlobClient) -> None:
    """Every block travels with its MD5, which the service checks; a file written from start to end also
    carries the MD5 of the whole.
    """
    content = os.urandom(MiB) * 20
    (mount().path / "file").write_bytes(content)
    md5 = hashlib.md5(content, usedforsecurity=False).digest()
    assert blob.get_blob_properties().content_settings.content_md5 == bytearray(md5)
    # The id of a block tells the MD5 that it was sent with.
    ids = [block.id for block in blob.get_block_list("committed")[0]]
    blocks = [content[start : start + 8 * MiB] for start in range(0, len(content), 8 * MiB)]
    assert len(ids) == len(blocks)
    for block_id, block in zip(ids, blocks, strict=True):
        assert hashlib.md5(block, usedforsecurity=False).hexdigest() in block_id


@on_both_bindings
def test_promise_6_attributes_survive(
    mount: Mounts, azurite: Azurite, container: str, tmp_path: Path
) -> None:
    """Modes, owners, times, symbolic links and empty directories survive copies, remounts and a round trip
    through AzCopy.
    """
    tree = make_tree(tmp_path / "tree")
    expected = snapshot(tree)
    first = mount()
    shell(first.path, 'cp -a "$TREE" copy', TREE=tree)
    mount.unmount(first)
    copy = mount().path / "copy"
    assert snapshot(copy) == expected
    assert shell(tree, 'rsync -a --itemize-changes . "$COPY"', COPY=copy) == ""

    (copy / "fifo").unlink()
    kept = kept_by_azcopy(tree)
    download(url_of(azurite, container, "copy"), tmp_path / "out", tmp_path, links_in="a")
    assert kept_by_azcopy(tmp_path / "out" / "copy") == kept


@on_both_bindings
def test_promise_7_umount_waits_or_names(mount: Mounts, blob: BlobClient) -> None:
    """`blobfs umount` succeeds only when nothing is unsent; otherwise it names the files."""
    mounted = mount()
    (mounted.path / "file").write_bytes(b"old")
    descriptor = os.open(mounted.path / "file", os.O_WRONLY)
    os.write(descriptor, b"new")
    lease = blob.acquire_lease()
    ended = blobfs("umount", mounted.path)
    assert ended.returncode != 0
    assert f"{mounted.path} stays mounted. Not committed:\n" in ended.stderr
    assert "/file" in ended.stderr
    assert blob.download_blob().readall() == b"old"

    lease.release()
    os.close(descriptor)
    mount.unmount(mounted)
    assert blob.download_blob().readall() == b"new"


def peak_bytes(mounted: Mount) -> int:
    """Return the most memory that the serving process ever had."""
    status = Path(f"/proc/{mounted.pid}/status").read_text()
    return int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[0]) * 1024


def test_promise_8_memory_stays_bounded(responder: Responder) -> None:
    """Memory stays within `--memory`; when it is used up, programs wait and do not fail."""
    container = uuid4().hex
    responder.create_container(container)
    responder.make_blobs(container, Recipe("many/{index:05}", 2000, size_bytes=1000, has_md5=False))
    responder.make_blobs(container, Recipe("large/{index}", 8, size_bytes=24 * MiB, has_md5=False))
    with Mounts(responder, container, "libfuse3") as mount, ThreadPoolExecutor(8) as programs:
        mounted = mount("--memory", "64MiB")
        assert peak_bytes(mounted) < BASE_BYTES

        def read(name: str) -> int:
            return len((mounted.path / name).read_bytes())

        def write(name: str) -> int:
            return (mounted.path / name).write_bytes(b"x" * (24 * MiB))

        large = [f"large/{number}" for number in range(8)]
        written = [f"written-{number}" for number in range(8)]
        small = [f"many/{name}" for name in os.listdir(mounted.path / "many")]
        assert set(programs.map(write, written)) == {24 * MiB}
        assert set(programs.map(read, large)) == {24 * MiB}
        assert set(programs.map(read, small)) == {1000}
        rewriting = programs.map(write, written)
        assert set(programs.map(read, large)) == set(rewriting) == {24 * MiB}
        assert peak_bytes(mounted) < BASE_BYTES + 64 * MiB


def test_promise_9_secrets_stay_secret(
    mount: Mounts, azurite: Azurite, container: str, tmp_path: Path
) -> None:
    """No secret appears on a command line, in a log, in an error message or in the status."""
    secrets = write_secrets(azurite, container, tmp_path)
    for option, (file, secret) in secrets.items():
        mounted = mount(option, file, "--log-level", "debug")
        (mounted.path / "file").write_bytes(b"content")
        assert (mounted.path / "file").read_bytes() == b"content"
        said = [
            mounted.announcement,
            Path(f"/proc/{mounted.pid}/cmdline").read_text(),
            os.getxattr(mounted.path, "user.blobfs.status").decode(),
            blobfs("umount", mounted.path).stdout,
            mounted.log.read_text(),
        ]
        mounted.has_died = True
        assert [text for text in said if secret in text] == [], option
        # A credential that is refused must not be shown either.
        spoilt = secret[:-6] + "AAAA=="
        file.write_text(file.read_text().replace(secret, spoilt))
        refusal = blobfs(*mount.arguments(mount.new_mountpoint()), option, file)
        assert refusal.returncode == 1
        assert spoilt[:-6] not in refusal.stderr + refusal.stdout
        # Nor one that stands where a name belongs, or after one.
        pasted = file.read_text()
        for arguments in (
            ("mount", pasted, container, tmp_path),
            ("mount", azurite.account, f"{container}?{pasted}", tmp_path),
            ("mount", azurite.account, container, tmp_path, pasted),
            ("cp", file, f"{azurite.account}/{container}/file?{pasted}"),
            ("verify", f"{azurite.endpoint}/{container}#{pasted}"),
        ):
            refusal = blobfs(*arguments)
            assert refusal.returncode == 2
            assert spoilt[:-6] not in refusal.stderr + refusal.stdout


def write_secrets(azurite: Azurite, container: str, directory: Path) -> dict[str, tuple[Path, str]]:
    """Write each kind of credential to a file; return by option the file and its secret part."""
    token = container_sas(container)
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={azurite.account};AccountKey={azurite.key};"
        f"BlobEndpoint={azurite.endpoint};"
    )
    contents = {
        "--account-key-file": (azurite.key, azurite.key),
        "--sas-file": (token, token.rpartition("sig=")[2]),
        "--connection-string-file": (connection, azurite.key),
    }
    secrets = {}
    for option, (content, secret) in contents.items():
        file = directory / option.strip("-")
        file.touch(0o600)
        file.write_text(content)
        secrets[option] = file, secret
    return secrets


@on_both_bindings
def test_promise_10_errors_name_their_cause(mount: Mounts, blobs: ContainerClient) -> None:
    """The errno (the error number) tells what happened; the log names the blob and the remedy."""
    for name in ("leased", "archived", "removed"):
        blobs.upload_blob(name, b"content")
    blobs.get_blob_client("paged").create_page_blob(512)
    root = mount().path
    assert len(os.listdir(root)) == 4
    lease = blobs.get_blob_client("leased").acquire_lease()
    blobs.get_blob_client("archived").set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    blobs.delete_blob("removed")

    for call, number, explanation in (
        (lambda: (root / "leased").unlink(), errno.EBUSY, "leased: .*lease"),
        (
            lambda: (root / "archived").read_bytes(),
            errno.ENODATA,
            "archived: .*archive tier; set its tier to Hot",
        ),
        (
            lambda: os.truncate(root / "paged", 0),
            errno.EOPNOTSUPP,
            "paged: .*PageBlob can be read, not written",
        ),
        (lambda: (root / "removed").read_bytes(), errno.ENOENT, ""),
        (lambda: (root / "back\\slash").touch(), errno.EINVAL, r"back.*slash.*: contains a backslash"),
        (lambda: os.link(root / "paged", root / "link"), errno.EPERM, "link: hard links do not exist"),
    ):
        with refused(number):
            call()
        mount.expect_log(explanation)
    lease.release()
