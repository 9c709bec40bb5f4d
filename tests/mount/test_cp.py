"""Copies and checks without a mount: what they bring, what they cost, and what a failure leaves."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar
from uuid import uuid4

import pytest
from azcopy import download, kept_by_azcopy, upload, url_of
from azure.storage.blob import BlobBlock, BlockState, ContainerClient
from azure.storage.blob import ContentSettings as ContentHeaders
from azurite import Azurite
from mounts import PROJECT, Mounts, blobfs, clean_environment, run, shell
from responder.control import Responder
from responder.faults import Fault, Rule
from responder.recipes import Recipe
from trees import contents, make_tree, snapshot
from waiting import wait_until

from blobfs.azure.store import AzureStore
from blobfs.copies import session
from blobfs.copy_session import Route
from blobfs.copying.entries import Work
from blobfs.copying.interruption import Interruption
from blobfs.copying.part_file import part_path
from blobfs.copying.places import Container, Place, place_of
from blobfs.copying.report import Report, Unwatched, Verdict
from blobfs.settings import ContentSettings, CopySettings, ServiceSettings, SessionSettings

MiB = 1 << 20


Service = TypeVar("Service", Azurite, Responder)


class Copies(Generic[Service]):
    """Runs the commands for one container of a service."""

    def __init__(self, service: Service, container: str) -> None:
        self.service = service
        self.container = container
        self.environment = {"BLOBFS_ENDPOINT": service.endpoint, "BLOBFS_TIMEOUT": "20"}

    def at(self, path: str = "") -> str:
        """Return what the commands call a place in the container."""
        return f"{self.service.account}/{self.container}/{path}".rstrip("/")

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        """Run `blobfs` with these arguments; return what it said. Fails the test unless it exits so."""
        ended = blobfs(*arguments, **self.environment)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def as_mortal(self, *arguments: str | Path, code: int = 0) -> str:
        """Run it likewise as a user whom modes keep out."""
        mortal = "setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "blobfs"
        ended = run(*mortal, *arguments, **self.environment)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def start(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Begin a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "blobfs", *map(str, arguments)],
            cwd=PROJECT,
            env={**clean_environment(), **self.environment},
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def copies(azurite: Azurite, container: str) -> Copies[Azurite]:
    return Copies(azurite, container)


@pytest.fixture
def blobs(azurite: Azurite, container: str) -> Iterator[ContainerClient]:
    """The container as another program sees it."""
    with azurite.client() as client:
        yield client.get_container_client(container)


@pytest.fixture(scope="module")
def faulty() -> Iterator[Responder]:
    with Responder() as responder:
        yield responder


@pytest.fixture
def strained(faulty: Responder) -> Iterator[Copies[Responder]]:
    """A new container of a service that does what the test orders."""
    container = uuid4().hex
    faulty.create_container(container)
    faulty.reset_counters()
    yield Copies(faulty, container)
    faulty.order()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def verdicts(said: str) -> dict[str, str]:
    """Return what --json says became of each entry, by its source."""
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return {line["source"] or line["target"]: line["verdict"] for line in lines if "verdict" in line}


# What copies bring


def test_a_tree_comes_back_the_same_and_again_nothing_is_copied(
    copies: Copies[Azurite], tree: Path, tmp_path: Path
) -> None:
    for name in ("one", "empty"):
        os.setxattr(tree / name, "user.colour", b"blue")
    copies("cp", "-r", tree, copies.at("new"))
    copies("cp", "-r", copies.at("new"), tmp_path / "back")
    for name in ("one", "empty"):
        assert os.getxattr(tmp_path / "back" / name, "user.colour") == b"blue"
    assert snapshot(tmp_path / "back") == snapshot(tree)
    for update in ("-u", "--checksum"):
        again = copies("cp", "-r", update, "--json", f"{tree}/.", copies.at("new"))
        back = copies("cp", "-r", update, "--json", copies.at("new/."), tmp_path / "back")
        assert set(verdicts(again).values()) | set(verdicts(back).values()) == {"skipped"}
    assert snapshot(tmp_path / "back") == snapshot(tree)


def test_read_only_files_and_directories_keep_their_extended_attributes(
    copies: Copies[Azurite], tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").touch()
    for path, mode in (tree / "file", 0o444), (tree / "sub", 0o555):
        os.setxattr(path, "user.colour", b"blue")
        path.chmod(mode)
    copies("cp", "-r", tree, copies.at("t"))
    as_mortal = 'setpriv --bounding-set=-all --inh-caps=-all "$PYTHON" -m blobfs cp -r "$FROM" "$TO"'
    for _ in range(2):
        shell(
            PROJECT,
            as_mortal,
            PYTHON=sys.executable,
            FROM=copies.at("t/."),
            TO=tmp_path / "back",
            **copies.environment,
        )
    for entry in ("file", "sub"):
        assert os.getxattr(tmp_path / "back" / entry, "user.colour") == b"blue"
    assert snapshot(tmp_path / "back") == snapshot(tree)


def test_a_mount_and_azcopy_read_what_cp_wrote(
    copies: Copies[Azurite], mount: Mounts, azurite: Azurite, tree: Path, tmp_path: Path
) -> None:
    copies("cp", "-r", tree, copies.at("tree"))
    mounted = mount().path / "tree"
    assert snapshot(mounted) == snapshot(tree)
    assert shell(tree, 'rsync -a --itemize-changes . "$COPY"', COPY=mounted) == ""
    copies("cp", copies.at("tree/fifo"), tmp_path)
    (tree / "fifo").unlink()
    (mounted / "fifo").unlink()
    download(url_of(azurite, copies.container, "tree"), tmp_path / "out", tmp_path, links_in="a")
    assert kept_by_azcopy(tmp_path / "out" / "tree") == kept_by_azcopy(tree)


def test_cp_reads_what_a_mount_and_azcopy_wrote(
    copies: Copies[Azurite], mount: Mounts, azurite: Azurite, tree: Path, tmp_path: Path
) -> None:
    mounted = mount().path
    os.setxattr(tree / "one", "user.colour", b"blue")
    shell(mounted, 'cp -a "$TREE" mounted', TREE=tree)
    copies("cp", "-r", copies.at("mounted"), tmp_path / "from mount")
    assert snapshot(tmp_path / "from mount") == snapshot(tree)
    assert os.getxattr(tmp_path / "from mount" / "one", "user.colour") == b"blue"
    assert set(verdicts(copies("verify", "--json", tree, copies.at("mounted"))).values()) == {"match"}

    (tree / "fifo").unlink()
    upload(tree, url_of(azurite, copies.container, "azcopied"), tmp_path, "--include-directory-stub")
    copies("cp", "-r", copies.at("azcopied"), tmp_path / "from azcopy")
    expected = snapshot(tree)
    copied = snapshot(tmp_path / "from azcopy")
    assert {name: copied.get(name) for name in expected if name != "."} == {
        name: facts for name, facts in expected.items() if name != "."
    }


def test_the_service_itself_copies_between_containers(
    copies: Copies[Azurite], azurite: Azurite, tree: Path, tmp_path: Path
) -> None:
    other = Copies(azurite, uuid4().hex)
    azurite.create_container(other.container)
    copies("cp", "-r", tree, copies.at("tree"))
    copies("cp", "-r", copies.at("tree"), other.at())
    copies("cp", "-r", other.at("tree"), tmp_path / "back")
    assert snapshot(tmp_path / "back") == snapshot(tree)


def test_the_url_of_a_place_and_its_short_name_mean_the_same(copies: Copies[Azurite], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    copies("cp", tmp_path / "file", copies.at("one"))
    url = f"{copies.service.endpoint}/{copies.container}/two"
    copies("cp", copies.at("one"), url)
    assert "into itself" in copies("cp", copies.at("two"), url, code=2)
    copies("verify", tmp_path / "file", url)


def test_standard_input_and_output_are_copied(copies: Copies[Azurite]) -> None:
    content = os.urandom(9 * MiB)
    command = [sys.executable, "-m", "blobfs", "cp"]
    environment = {**clean_environment(), **copies.environment}
    subprocess.run([*command, "-", copies.at("in")], input=content, env=environment, cwd=PROJECT, check=True)
    output = subprocess.run(
        [*command, copies.at("in"), "-"], stdout=-1, env=environment, cwd=PROJECT, check=True
    )
    assert output.stdout == content


def test_without_r_a_fifo_is_read_to_its_end_and_a_device_is_refused(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe", 0o640)
    copied = shell(
        tmp_path,
        "timeout 20 sh -c 'echo one > pipe' & "
        'echo two | "$PYTHON" -m blobfs cp /dev/stdin pipe /dev/null "$THERE/" 2>&1 || :',
        PYTHON=sys.executable,
        PYTHONPATH=PROJECT,
        THERE=strained.at("t"),
        **strained.environment,
    )
    assert "/dev/null: failed: is a device or socket: copy it with -r" in copied
    assert "2 copied, 1 failed, 8 bytes" in copied
    with strained.service.client() as client:
        blobs = client.get_container_client(strained.container)
        for name, body in ("t/stdin", b"two\n"), ("t/pipe", b"one\n"):
            assert blobs.download_blob(name).readall() == body
        assert blobs.get_blob_client("t/pipe").get_blob_properties().metadata["permissions"] == str(0o100640)
    # Nobody writes to it now.
    assert "1 skipped" in strained("cp", "--no-clobber", tmp_path / "pipe", strained.at("t"))
    assert "would copy" in strained("cp", "--dry-run", tmp_path / "pipe", strained.at("new"))


def test_a_new_blob_says_what_it_is_asked_to(
    copies: Copies[Azurite], blobs: ContainerClient, tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text("<p>")
    copies("cp", tmp_path / "page.html", copies.at("guessed"), "--tier", "cool")
    copies("cp", tmp_path / "page.html", copies.at())
    copies("cp", "--content-type", "text/x-own", "--no-preserve", tmp_path / "page.html", copies.at("own"))
    assert blobs.get_blob_client("guessed").get_blob_properties().blob_tier == "Cool"
    assert (
        blobs.get_blob_client("page.html").get_blob_properties().content_settings.content_type == "text/html"
    )
    assert blobs.get_blob_client("own").get_blob_properties().content_settings.content_type == "text/x-own"


def test_links_are_kept_followed_or_skipped(copies: Copies[Azurite], tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "real").mkdir(parents=True)
    (source / "real" / "file").write_text("bytes")
    (source / "link").symlink_to("real")
    (source / "real" / "up").symlink_to("..")
    for symlinks in ("follow", "skip", "keep"):
        said = copies(
            "cp", "-r", "--symlinks", symlinks, source, copies.at(symlinks), code=symlinks == "follow"
        )
        assert ("up: failed" in said) == (symlinks == "follow")  # it has no end
        copies("cp", "-r", copies.at(symlinks), tmp_path / symlinks)
    assert (tmp_path / "follow" / "link" / "file").read_text() == "bytes"
    assert not (tmp_path / "follow" / "link").is_symlink()
    assert sorted(contents(tmp_path / "skip")) == ["real", "real/file"]
    assert os.readlink(tmp_path / "keep" / "link") == "real"


def test_a_file_replaces_a_link_where_links_are_skipped_and_other_links_stay(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    with strained.service.client() as client:
        blobs = client.get_container_client(strained.container)
        for name in ("t/file", "t/link"):
            blobs.upload_blob(name, b"elsewhere", metadata={"is_symlink": "true"})
        (tmp_path / "file").write_text("text")
        skipping = "cp", "-r", "--delete", "--symlinks", "skip"
        assert "deleted" not in strained(*skipping, "--dry-run", f"{tmp_path}/.", strained.at("t"))
        strained(*skipping, f"{tmp_path}/.", strained.at("t"))
        bodies = {name: blobs.download_blob(name).readall() for name in blobs.list_blob_names()}
    assert bodies == {"t": b"", "t/file": b"text", "t/link": b"elsewhere"}


def test_a_copy_closes_every_container_that_it_opened(
    strained: Copies[Responder], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = strained.service
    with service.client() as client:
        service.create_container(f"{strained.container}-2")
        client.get_blob_client(strained.container, "blob").upload_blob(b"bytes")
    opened: list[AzureStore] = []
    closed: list[AzureStore] = []
    monkeypatch.setattr(AzureStore, "__init__", _then(AzureStore.__init__, opened.append))
    monkeypatch.setattr(AzureStore, "close", _then(AzureStore.close, closed.append))
    report = Report(Unwatched())
    target = Container(service.account, f"{strained.container}-2")
    there = ServiceSettings(target.account, target.name, endpoint=service.endpoint)
    settings = SessionSettings(there, ContentSettings(), CopySettings())
    with session(settings, report, Interruption()) as copies:
        copies.copy([place_of(strained.at("blob"), lambda _: False)], Place("", "copy", target))
    assert report.copied_bytes == 5
    assert len(opened) == 2
    assert closed == opened


def test_a_download_that_is_done_again_finds_that_it_has_landed(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    """As when a worker of a cluster was lost before it could say so."""
    target, service = tmp_path / "file", strained.service
    with service.client() as client:
        client.get_blob_client(strained.container, "blob").upload_blob(b"bytes")
    there = ServiceSettings(service.account, strained.container, endpoint=service.endpoint)
    settings = SessionSettings(there, ContentSettings(), CopySettings())
    report = Report(Unwatched())
    source = place_of(strained.at("blob"), lambda _: False)
    route = Route(source, Place(str(target), str(target)), str(target))
    with session(settings, report, Interruption()) as copies:
        entry = copies.source_tree(route).root()
        assert entry is not None
        work = Work(entry, "blob", str(target))
        assert not copies.has_landed(route, work)
        assert copies.carrier(route).copy(work).verdict is Verdict.COPIED
        assert copies.carrier(route).copy(work).verdict is Verdict.FAILED
        assert copies.has_landed(route, work)
        target.write_bytes(b"other")
        assert not copies.has_landed(route, work)


# What they do not do


def test_links_that_lead_round_in_circles_are_named(copies: Copies[Azurite], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "file").touch()
    for link in (tree / "self", tree / "a" / "up"):
        link.symlink_to(tree)
    found = verdicts(copies("cp", "-r", "--symlinks", "follow", "--json", tree, copies.at("t"), code=1))
    failed = {f"{tree}/self": "failed", f"{tree}/a/up": "failed"}
    assert found == {str(tree): "copied", f"{tree}/a": "copied", f"{tree}/a/file": "copied", **failed}


def test_delete_removes_only_what_the_source_does_not_have(
    copies: Copies[Azurite], tree: Path, tmp_path: Path
) -> None:
    copies("cp", "-r", tree, copies.at("tree"))
    copies("cp", tree / "large", copies.at("tree/a/extra"))
    copies("cp", tree / "large", copies.at("trees"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").touch()
    back = tmp_path / "back"
    (back / "a" / "extra" / "deep").mkdir(parents=True)
    (back / "a" / "extra" / "deep" / "link").symlink_to(outside)
    (back / "cache").mkdir()
    (back / "cache" / "kept").touch()
    copies("cp", "-r", "--delete", f"{tree}/.", copies.at("tree"))
    copies("cp", "-r", "--delete", "--exclude", "cache", copies.at("tree/."), back)
    assert (back / "cache" / "kept").exists()
    assert (outside / "keep").exists()
    (back / "cache" / "kept").unlink()
    (back / "cache").rmdir()
    assert contents(back) == contents(tree)
    copies("cp", copies.at("trees"), tmp_path)


def test_a_directory_that_may_not_be_deleted_is_named(strained: Copies[Responder], tmp_path: Path) -> None:
    source, kept = tmp_path / "source", tmp_path / "back" / "kept"
    source.mkdir()
    (kept / "empty").mkdir(parents=True)
    kept.chmod(0o555)
    strained("cp", "-r", source, strained.at("t"))
    said = strained.as_mortal("cp", "-r", "--delete", strained.at("t/."), kept.parent, code=1)
    assert "kept/empty: failed: Permission denied" in said


def test_nothing_is_deleted_when_a_listing_breaks_off(strained: Copies[Responder], tmp_path: Path) -> None:
    """There is a page of names before it does."""
    service = strained.service
    service.make_blobs(strained.container, Recipe("tree/{index:05}", 5001))
    here = tmp_path / "here"
    here.mkdir()
    (here / "extra").touch()
    for source, target in ((strained.at("tree/."), str(here)), (f"{here}/.", strained.at("tree"))):
        service.order(Rule(kind="LIST", pattern="marker", status=403, error_code="AuthorizationFailure"))
        said = strained("cp", "-r", "--delete", source, target, code=1)
        assert "ended early" in said
        assert service.hits == [1]
        assert (here / "extra").exists()
    service.order()
    assert {"DELETE blob", "POST batch"}.isdisjoint(service.counters.requests)


def test_many_blobs_are_deleted_by_few_requests_and_one_that_is_kept_is_named(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    service = strained.service
    service.make_blobs(strained.container, Recipe("tree/{index:03}", 100))
    here = tmp_path / "here"
    here.mkdir()
    (here / "new").touch()
    refusal = Rule(pattern="DELETE .*/tree/007", status=409, error_code="BlobImmutableDueToPolicy")
    service.order(refusal)
    said = strained("cp", "-r", "--delete", f"{here}/.", strained.at("tree"), code=1)
    assert "tree/007: a retention policy or legal hold protects the blob" in said
    assert "99 deleted" in said
    assert (service.counters.requests["POST batch"], service.counters.requests["DELETE blob"]) == (2, 1)
    service.order()
    strained("cp", "-r", "--delete", f"{here}/.", strained.at("tree"))
    strained("cp", "-r", strained.at("tree"), tmp_path)
    assert os.listdir(tmp_path / "tree") == ["new"]


def test_a_failed_file_is_named_and_stops_neither_others_nor_an_old_one(
    strained: Copies[Responder], tree: Path, tmp_path: Path
) -> None:
    strained("cp", "-r", tree, strained.at("tree"))
    back = tmp_path / "back"
    strained("cp", "-r", strained.at("tree"), back)
    (back / "extra").touch()
    before = snapshot(back)
    strained.service.order(Rule(kind="GET blob", pattern="odd|large", fault=Fault.FLIP, at_byte=77))
    said = strained("cp", "-r", "--delete", strained.at("tree/."), back, code=1)
    assert "tree/a/b/c/odd: failed" in said
    assert "tree/large: failed" in said
    assert f"(target: {back / 'large'})" in said
    assert "nothing is deleted" in said
    (part,) = back.rglob(".blobfs-*")  # of the larger one, to go on from
    part.unlink()
    after = snapshot(back)
    del before["."], after["."]
    assert after == before


def test_names_that_lead_outside_are_refused(strained: Copies[Responder], tmp_path: Path) -> None:
    service, outside = strained.service, tmp_path / "outside"
    outside.mkdir()
    service.make_blobs(strained.container, Recipe("bad/../../outside/{index}", 1, size_bytes=10))
    service.make_blobs(strained.container, Recipe("bad/link/{index}", 1, size_bytes=10))
    with service.client() as client:
        blobs = client.get_container_client(strained.container)
        blobs.upload_blob("bad/link", str(outside).encode(), metadata={"is_symlink": "true"})
        blobs.upload_blob("bad/good", b"good")
    (tmp_path / "in" / "bad").mkdir(parents=True)
    (tmp_path / "in" / "bad" / "link").symlink_to(outside)
    for target in ("new", "in"):
        said = strained("cp", "-r", strained.at("bad"), tmp_path / target, code=1)
        assert "reserved for the directory itself and its parent" in said
    assert list(outside.iterdir()) == []
    assert (tmp_path / "in" / "bad" / "good").read_bytes() == b"good"


def test_a_file_that_somebody_else_made_meanwhile_is_not_overwritten(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    service = strained.service
    (tmp_path / "file").write_bytes(b"mine")
    service.order(Rule(kind="PUT blob", fault=Fault.HOLD, count=1))  # it has found that nothing is there
    copying = strained.start("cp", tmp_path / "file", strained.at("file"))
    wait_until(lambda: service.hits == [1])
    with service.client() as client:
        blob = client.get_blob_client(strained.container, "file")
        blob.upload_blob(b"theirs")
        service.order()
        assert copying.wait(30) == 1
        assert blob.download_blob().readall() == b"theirs"
    copying.communicate()


def test_a_file_that_is_written_while_it_is_read_is_not_copied(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    """Although its time of modification is set back."""
    here = tmp_path / "file"
    here.write_bytes(os.urandom(24 * MiB))
    before = here.stat()
    strained.service.order(Rule(kind="PUT block", skip=1, count=4, fault=Fault.HOLD))
    copying = strained.start("cp", "--memory", "16MiB", "--block-size", "2MiB", here, strained.at("file"))
    wait_until(lambda: strained.service.hits[0] > 0)
    with here.open("r+b") as file:
        file.write(b"new")
    os.utime(here, ns=(before.st_atime_ns, before.st_mtime_ns))
    strained.service.order()
    assert "written while it was being copied" in copying.communicate(timeout=30)[1]
    assert copying.returncode == 1


@pytest.mark.parametrize("before", [None, "before"])
@pytest.mark.parametrize("metadata", [{}, {"is_symlink": "true"}])
def test_a_file_that_was_written_here_during_a_download_is_not_overwritten(
    strained: Copies[Responder], tmp_path: Path, before: str | None, metadata: dict[str, str]
) -> None:
    service, here = strained.service, tmp_path / "file"
    with service.client() as client:
        client.get_blob_client(strained.container, "file").upload_blob(b"there", metadata=metadata)
    if before is not None:
        here.write_text(before)
    service.order(Rule(kind="GET blob", fault=Fault.HOLD))
    copying = strained.start("cp", strained.at("file"), here)
    wait_until(lambda: service.hits == [1])
    here.write_text("edited here")
    service.order()
    assert "file: failed" in copying.communicate(timeout=30)[1]
    assert copying.returncode == 1
    assert here.read_text() == "edited here"
    assert list(tmp_path.glob(".blobfs-*")) == []


def test_two_blobs_that_would_be_one_file_are_not_both_called_copied(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    with strained.service.client() as client:
        for name in ("twins/one", "twins/one/"):
            client.get_blob_client(strained.container, name).upload_blob(name.encode())
    said = strained("cp", "-r", "--jobs", "1", strained.at("twins"), tmp_path / "back", code=1)
    assert "twins/one/: failed" in said
    assert (tmp_path / "back" / "one").read_text() == "twins/one"


def test_a_directory_keeps_its_mode_where_another_program_marked_it_too(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o700)
    with strained.service.client() as client:
        client.get_blob_client(strained.container, "t/d/").upload_blob(b"")
    strained("cp", "-r", "--delete", f"{tmp_path}/.", strained.at("t"))
    strained("cp", "-r", strained.at("t"), tmp_path / "back")
    assert (tmp_path / "back" / "d").stat().st_mode & 0o777 == 0o700


def test_a_copy_to_a_name_below_a_file_is_refused_and_the_file_stays(
    strained: Copies[Responder], tree: Path
) -> None:
    strained("cp", tree / "one", strained.at("x/a"))
    strained.service.reset_counters()
    for arguments in ((tree / "one",), ("-r", tree)):
        said = strained("cp", *arguments, strained.at("x/a/b/c"), code=1)
        assert "x/a is no directory" in said
    assert strained.service.counters.requests.get("PUT blob", 0) == 0
    strained("cp", tree / "one", strained.at("x/b/c"))


def test_a_file_that_meets_a_directory_of_a_tree_stays(strained: Copies[Responder], tmp_path: Path) -> None:
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "b" / "c").touch()
    (tmp_path / "a").touch()
    with strained.service.client() as client:
        client.get_blob_client(strained.container, "prefixes/a/b/c").upload_blob(b"")  # without directories
    for source in (tmp_path / "tree", strained.at("prefixes")):
        strained("cp", tmp_path / "a", strained.at("there/a"))
        said = strained("cp", "-r", f"{source}/.", strained.at("there"), code=1)
        assert "there/a is no directory" in said
        strained("verify", tmp_path / "a", strained.at("there/a"))


def test_a_blob_that_is_hidden_by_a_directory_keeps_nothing_out_of_it(
    strained: Copies[Responder], tree: Path
) -> None:
    with strained.service.client() as client:
        for name in ("x/a", "x/a/old"):
            client.get_blob_client(strained.container, name).upload_blob(b"text")
    strained("cp", tree / "one", strained.at("x/a/b/new"))
    with strained.service.client() as client:
        container = client.get_container_client(strained.container)
        bodies = {name: container.download_blob(name).readall() for name in container.list_blob_names()}
    assert bodies == {"x/a": b"text", "x/a/old": b"text", "x/a/b/new": (tree / "one").read_bytes()}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("cp", "./a", "./b"), "cp(1)"),
        (("cp", "acc/cont/a", "other/cont"), "two accounts"),
        (("cp", "--delete", "./a", "acc/cont"), "-r"),
        (("cp", "--symlinks", "follow", "acc/cont/a", "."), "keep or skip"),
        (("cp", "--tier", "Hot", "acc/cont/a", "."), "uploads"),
        (("cp", "--no-preserve", "acc/cont/a", "acc/cont/b"), "between containers"),
        (("cp", "--dry-run", "-", "acc/cont/a"), "--dry-run"),
        (("cp", "--json", "acc/cont/a", "-"), "--json"),
        (("cp", "./a", "Acc/cont"), "account name"),
        (("cp", "--include", "", "./a", "acc/cont"), "pattern"),
        (("verify", "./a"), "container"),
        (("verify", "./a", "./b", "acc/cont"), "More than two"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(arguments: Sequence[str], word: str) -> None:
    ended = blobfs(*arguments, BLOBFS_ENDPOINT="http://127.0.0.1:9")
    assert ended.returncode == 2, ended.stderr
    assert word in ended.stderr


def test_options_of_a_mount_in_the_configuration_file_do_no_harm(
    copies: Copies[Azurite], tmp_path: Path
) -> None:
    (tmp_path / "blobfs.toml").write_text('memory = "64MiB"\nattr-timeout = 5\nread-only = true\n')
    copies("cp", "--config", tmp_path / "blobfs.toml", tmp_path / "blobfs.toml", copies.at())
    copies("verify", "--config", tmp_path / "blobfs.toml", copies.at())


def test_a_reader_of_standard_output_may_go_away(copies: Copies[Azurite], tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(9 * MiB))
    copies("cp", tmp_path / "large", copies.at())
    said = shell(
        tmp_path,
        f"{sys.executable} -m blobfs cp {copies.at('large')} - 2> said | head -c 5; cat said",
        PYTHONPATH=PROJECT,
        **copies.environment,
    )
    assert "nobody reads standard output" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("command", "code", "word"),
    [
        ('cp "$THERE" - > /dev/full', 1, "No space left on device"),
        ('cp --json "$HERE" "$THERE" > /dev/full', 1, "No space left on device"),
        ('cp --dry-run "$HERE" "$THERE" > /dev/full', 1, "No space left on device"),
        ('cp "$THERE" - >&-', 2, "is closed"),
        ('cp - "$THERE" <&-', 2, "is closed"),
    ],
)
def test_streams_that_cannot_be_used_are_named(
    strained: Copies[Responder], tmp_path: Path, command: str, code: int, word: str
) -> None:
    here, there = tmp_path / "file", strained.at("file")
    here.write_text("text")
    strained("cp", here, there)
    environment = {"PYTHON": sys.executable, "HERE": str(here), "THERE": there, **strained.environment}
    ended = run("sh", "-c", f'"$PYTHON" -m blobfs {command}', **environment)
    assert ended.returncode == code
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr
    strained("verify", here, there)


def test_a_terminal_shows_how_far_it_is(copies: Copies[Azurite], tree: Path) -> None:
    command = f"{sys.executable} -m blobfs cp -r --limit-rate 8MiB . {copies.at('tree')}"
    said = shell(tree, f"script -qec '{command}' /dev/null", PYTHONPATH=PROJECT, **copies.environment)
    assert "MiB" in said
    assert "25/25" in said


def test_an_early_end_does_not_say_that_there_was_nothing_to_do(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    nowhere = f"{strained.service.account}/missing-{strained.container}/x"
    for arguments in ("cp", tmp_path, nowhere), ("cp", nowhere, tmp_path), ("verify", nowhere):
        said = strained(*arguments, code=1)
        assert said.startswith("blobfs: ended early: ")


# What they cost, and what is left of those that are ended


def test_a_small_file_is_one_request_each_way(strained: Copies[Responder], tmp_path: Path) -> None:
    source = tmp_path / "many"
    source.mkdir()
    for number in range(50):
        (source / str(number)).write_bytes(os.urandom(1000))
    strained("cp", "-r", source, strained.at("many"))
    there = strained.service.reset_counters().requests
    strained("cp", "-r", strained.at("many"), tmp_path / "back")
    back = strained.service.reset_counters().requests
    assert there["PUT blob"] == 51  # and one for the directory
    assert sum(there.values()) <= 51 + 4
    assert back["GET blob"] == 50
    assert sum(back.values()) <= 50 + 4
    assert contents(tmp_path / "back") == contents(source)


def test_a_killed_upload_goes_on_with_what_is_staged(strained: Copies[Responder], tmp_path: Path) -> None:
    service = strained.service
    (tmp_path / "large").write_bytes(os.urandom(48 * MiB))
    service.order(Rule(kind="PUT block", skip=3, latency_seconds=30.0))
    copying = strained.start("cp", tmp_path / "large", strained.at("large"))
    wait_until(lambda: service.counters.requests.get("PUT block", 0) > 3)
    _kill(copying, signal.SIGKILL)
    service.order()
    service.reset_counters()
    strained("cp", tmp_path / "large", strained.at("large"))
    counters = service.reset_counters()
    assert counters.requests["PUT block"] <= 3
    assert counters.bytes_in < 25 * MiB
    strained("verify", "--full", tmp_path / "large", strained.at("large"))


def test_a_killed_download_goes_on_with_what_is_verified(strained: Copies[Responder], tmp_path: Path) -> None:
    service = strained.service
    (tmp_path / "large").write_bytes(os.urandom(64 * MiB))
    strained("cp", tmp_path / "large", strained.at("large"))
    old = tmp_path / "old"
    old.write_text("older")
    service.reset_counters()
    service.order(Rule(kind="GET blob", bytes_per_second=8 * MiB))
    copying = strained.start("cp", strained.at("large"), old)
    wait_until(lambda: any(_stored_bytes(part) >= 16 * MiB for part in tmp_path.glob(".blobfs-*")))
    _kill(copying, signal.SIGKILL)
    assert old.read_text() == "older"
    (part,) = tmp_path.glob(".blobfs-*")
    whole_blocks = _stored_bytes(part) // (8 * MiB)
    with part.open("r+b") as file:
        file.write(b"damage")
    service.order()
    service.reset_counters()
    strained("cp", strained.at("large"), old)
    counters = service.reset_counters()
    assert (
        counters.requests["GET blob"] == 8 - whole_blocks + 1
    )  # those that were missing, and the damaged one
    assert _md5(old) == _md5(tmp_path / "large")
    assert list(tmp_path.glob(".blobfs-*")) == []


def test_an_ordinary_user_goes_on_with_what_has_the_mode_of_a_read_only_file(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(24 * MiB))
    source.chmod(0o444)
    strained("cp", source, strained.at("file"))
    part = part_path(back)
    part.write_bytes(source.read_bytes()[: 16 * MiB])
    part.chmod(0o444)
    strained.service.reset_counters()
    strained.as_mortal("cp", strained.at("file"), back)
    assert strained.service.counters.requests["GET blob"] == 1
    assert (_md5(back), back.stat().st_mode) == (_md5(source), source.stat().st_mode)
    assert list(tmp_path.glob(".blobfs-*")) == []


def test_a_file_that_failed_comes_to_its_read_only_directory_later(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    tree, back = tmp_path / "tree", tmp_path / "back"
    (tree / "sub").mkdir(parents=True)
    for name in ("good", "bad"):
        (tree / "sub" / name).write_text(name)
    (tree / "sub").chmod(0o555)
    strained("cp", "-r", tree, strained.at("tree"))
    strained.service.order(Rule(kind="GET blob", pattern="bad", status=403))
    strained.as_mortal("cp", "-r", "-u", strained.at("tree/."), back, code=1)
    assert (back / "sub").stat().st_mode & 0o777 == 0o555
    strained.service.order()
    strained.as_mortal("cp", "-r", "-u", strained.at("tree/."), back)
    assert snapshot(back) == snapshot(tree)


@pytest.mark.parametrize("options", [[], ["--no-clobber"]])
def test_nobody_else_can_enter_the_directories_of_a_download_before_its_end(
    strained: Copies[Responder], tmp_path: Path, options: list[str]
) -> None:
    tree, back = tmp_path / "tree", tmp_path / "back"
    for name, mode in ("private", 0o700), ("public", 0o755):
        (tree / name / "below").mkdir(parents=True)
        (tree / name / "below" / "file").write_bytes(os.urandom(1000))
        (tree / name).chmod(mode)
    strained("cp", "-r", tree, strained.at("tree"))
    strained.service.order(Rule(kind="GET blob", latency_seconds=30.0))
    copying = strained.start("cp", "-r", strained.at("tree"), back)
    wait_until(lambda: strained.service.hits == [2])
    _kill(copying, signal.SIGKILL)
    assert {path.stat().st_mode & 0o777 for path in (back, *back.glob("*"), *back.glob("*/*"))} == {0o700}
    strained.service.order()
    strained("cp", "-r", *options, strained.at("tree/."), back)
    assert snapshot(back) == snapshot(tree)


def test_an_interrupted_copy_says_so_and_ends_within_seconds(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    service = strained.service
    (tmp_path / "many").mkdir()
    for number in range(40):
        (tmp_path / "many" / str(number)).write_bytes(b"x")
    service.order(Rule(kind="PUT blob", skip=20, status=503))
    copying = strained.start("cp", "-r", tmp_path / "many", strained.at("many"))
    wait_until(lambda: service.counters.statuses.get(503, 0) > 3)
    copying.send_signal(signal.SIGINT)
    _, said = copying.communicate(timeout=15)
    assert copying.returncode == 130
    assert "interrupted" in said
    assert "copied" in said


# Checks


def test_verify_tells_what_differs_without_reading_it(strained: Copies[Responder], tree: Path) -> None:
    service = strained.service
    (tree / "fifo").unlink()
    strained("cp", "-r", tree, strained.at("tree"))
    (tree / "large").write_bytes(b"x" * (9 << 20))
    (tree / "one").unlink()
    (tree / "new").touch()
    (tree / "link").unlink()
    (tree / "link").symlink_to("a/b/pagX")
    service.reset_counters()
    found = verdicts(strained("verify", "--json", tree, strained.at("tree"), code=1))
    bad = {name: verdict for name, verdict in found.items() if verdict != "match"}
    assert bad == {
        f"{tree}/large": "differ",
        f"{tree}/link": "differ",
        f"{tree}/new": "missing",
        "tree/one": "missing",
    }
    assert service.reset_counters().bytes_out < MiB


def test_verify_uses_block_checksums_and_reads_what_has_none(
    copies: Copies[Azurite], blobs: ContainerClient, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "ours").write_bytes(os.urandom(9 * MiB))
    copies("cp", "-r", "--no-file-md5", here, copies.at("t"))
    (here / "theirs").write_bytes(b"without checksum")
    theirs = blobs.upload_blob("t/theirs", b"without checksum")
    theirs.set_http_headers(ContentHeaders(content_md5=None))
    found = verdicts(copies("verify", "--json", here, copies.at("t"), code=1))
    assert found == {f"{here}/ours": "match", f"{here}/theirs": "unverifiable"}
    copies("verify", "--full", here, copies.at("t"))
    (here / "theirs").write_bytes(b"Without checksum")
    assert "theirs: differ" in copies("verify", "--full", here, copies.at("t"), code=1)


@pytest.mark.timeout(60)
def test_verify_ends_when_memory_has_no_room_for_all_its_jobs(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for number in range(16):
        with (here / str(number)).open("wb") as file:
            file.truncate(2 * MiB)
    strained("cp", "-r", "--no-file-md5", "--block-size", "1MiB", here, strained.at("t"))
    for how in ("--jobs", "16"), ("--jobs", "16", "--full"):
        assert "16 match" in strained("verify", "--memory", "16MiB", *how, here, strained.at("t"))


def test_blocks_that_are_larger_than_memory_has_room_for_are_checked_all_the_same(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    here, service, little = tmp_path / "large", strained.service, ("--memory", "16MiB")
    here.write_bytes(os.urandom(9 * MiB))
    strained("cp", "--no-file-md5", "--block-size", "4MiB", here, strained.at("large"))
    assert "1 match" in strained("verify", *little, here, strained.at("large"))
    assert "1 match" in strained("verify", *little, strained.at("large"))
    with here.open("r+b") as file:
        file.seek(5 * MiB)
        file.write(b"changed")
    assert "differ: large: block at" in strained("verify", *little, here, strained.at("large"), code=1)
    with service.client() as client:
        blob = client.get_blob_client(strained.container, "large")
        listed, _ = blob.get_block_list("committed")
        ids = [block.id for block in listed]
        blob.stage_block(ids[1], bytes(4 * MiB))  # under the checksum of what it was
        blob.commit_block_list(
            [BlobBlock(ids[0]), BlobBlock(ids[1], BlockState.UNCOMMITTED), BlobBlock(ids[2])]
        )
    assert "large: differ" in strained("verify", *little, strained.at("large"), code=1)
    said = strained("cp", *little, strained.at("large"), tmp_path / "copy", code=1)
    assert "expected XXH3" in said
    assert not (tmp_path / "copy").exists()


def test_verify_names_all_that_is_missing_whatever_it_is_called(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    names = ["t/double//slash", "t/plain", "t/with\nline"]
    with strained.service.client() as client:
        for name in names:
            client.get_blob_client(strained.container, name).upload_blob(b"bytes")
    found = verdicts(strained("verify", "--json", tmp_path / "here", strained.at("t"), code=1))
    assert found == dict.fromkeys(names, "missing")


def test_verify_names_a_blob_that_another_one_hides(strained: Copies[Responder], tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "x").write_bytes(b"one")
    with strained.service.client() as client:
        for name, body in ("t/x", b"one"), ("t/x/", b"two"):
            client.get_blob_client(strained.container, name).upload_blob(body)
    found = verdicts(strained("verify", "--json", here, strained.at("t"), code=1))
    assert found == {f"{here}/x": "match", "t/x/": "missing"}


def test_no_control_character_of_a_name_reaches_the_terminal(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    name = "a\x1b[2Jb\nc"
    (tmp_path / "here").mkdir()
    with strained.service.client() as client:
        client.get_blob_client(strained.container, f"t/{name}").upload_blob(b"bytes")
    for command in (
        ("verify", tmp_path / "here", strained.at("t")),
        ("cp", "-r", strained.at("t"), tmp_path / "back"),
    ):
        said = strained(*command, code=1)
        assert r"t/a\x1b[2Jb\nc: " in said
        assert "\x1b" not in said


def test_a_pattern_that_leaves_nothing_to_compare_is_a_failure(
    strained: Copies[Responder], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    strained("cp", "-r", here, strained.at("t"))
    strained("verify", here, strained.at("t"))  # nothing is there, and nothing is missing
    (here / "sub" / "file").touch()
    strained("cp", "-r", f"{here}/.", strained.at("t"))
    for places in (here, strained.at("t")), (strained.at("t"),):
        assert "1 match" in strained("verify", "--include", "fil*", *places)
        for pattern in ("--include", "fill*"), ("--exclude", "*"):
            assert "nothing was compared" in strained("verify", *pattern, *places, code=1)


def test_an_audit_finds_what_is_damaged_on_the_service(strained: Copies[Responder], tree: Path) -> None:
    service = strained.service
    strained("cp", "-r", tree, strained.at("tree"))
    strained("verify", strained.at())
    service.order(Rule(kind="GET blob", pattern="large", fault=Fault.FLIP, at_byte=5))
    said = strained("verify", strained.at("tree"), code=1)
    assert "tree/large: differ" in said


def _then(method: Callable[..., None], note: Callable[[AzureStore], None]) -> Callable[..., None]:
    """Return the method, of which a note is made."""

    def noted(store: AzureStore, *arguments: object, **options: object) -> None:
        note(store)
        method(store, *arguments, **options)

    return noted


def _kill(process: "subprocess.Popen[str]", number: int) -> None:
    process.send_signal(number)
    process.communicate()


def _stored_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
