"""What a copy's arguments name, where each copy goes, and what is copied at all."""

import os
import pickle
import resource
import stat
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import MemoryStore

from blobfs.blocks import KiB
from blobfs.copying.catalogue import Catalogue
from blobfs.copying.entries import Entry, Work, entry_of_blob, virtual_directory
from blobfs.copying.places import Container, Place, at_endpoints, place_of, require_direction
from blobfs.copying.plan import Rules, Step, refuse_inside_itself, root_for, step_for
from blobfs.copying.selection import Selection
from blobfs.copying.trees import LocalTree, RemoteTree
from blobfs.errors import (
    AlreadyExists,
    Changed,
    Failure,
    InvalidArgument,
    IsADirectory,
    NoSpace,
    NotADirectory,
)
from blobfs.format.attributes import Attributes, Defaults
from blobfs.store import ALWAYS, BlobInfo

HERE = Container("acc", "cont")
DEFAULTS = Defaults.for_umask(1, 2, 0o022)


def place(text: str, *here: str) -> Place:
    return place_of(text, here.__contains__)


def entry(kind: int = stat.S_IFREG, *, size_bytes: int = 5, mtime_ns: int = 7, path: str = "x") -> Entry:
    return Entry(path, Attributes(kind | 0o644, 1, 2, mtime_ns, 0, 0), size_bytes)


BLOB = BlobInfo("x", "1", 5, 0)
FILE, DIRECTORY, LINK = entry(), entry(stat.S_IFDIR), entry(stat.S_IFLNK)
DEVICE, OTHER_DEVICE = (
    Entry("x", Attributes(stat.S_IFCHR | 0o644, 1, 2, 7, 0, 0, rdev=rdev), 0) for rdev in (1, 2)
)
UNFINISHED = Entry("x", Attributes(stat.S_IFDIR | 0o3700, 1, 2, 7, 0, 0), 0)


# Places


@pytest.mark.parametrize(
    ("text", "path", "container"),
    [
        ("acc/cont", "", HERE),
        ("acc/cont/", "", HERE),
        ("acc/cont/a/b", "a/b", HERE),
        ("acc/cont/a/b/", "a/b", HERE),
        ("acc/cont/a/.", "a", HERE),
        ("acc/cont/.", "", HERE),
        ("https://acc.blob.core.windows.net/cont/a%20b", "a b", None),
        ("file", "file", None),
        ("dir/", "dir/", None),
        ("/acc/cont", "/acc/cont", None),
        ("./acc/cont", "./acc/cont", None),
        ("../acc/cont", "../acc/cont", None),
        ("~/acc", "~/acc", None),
        (".", ".", None),
        ("..", "..", None),
        ("-", "-", None),
        ("results/new", "results/new", None),
    ],
)
def test_an_argument_is_a_container_unless_something_here_is_called_like_the_account(
    text: str, path: str, container: Container | None
) -> None:
    found = place(text, "results")
    assert found.path == path
    if text.startswith("https"):
        container = Container("acc", "cont", "https://acc.blob.core.windows.net")
    assert found.container == container


def test_the_address_of_an_emulator_names_the_account_in_its_path() -> None:
    found = place("http://127.0.0.1:10000/devstoreaccount1/cont/a")
    assert found.container == Container("devstoreaccount1", "cont", "http://127.0.0.1:10000/devstoreaccount1")
    assert found.path == "a"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("https://acc.blob.core.windows.net/", "https://acc.blob.core.windows.net/"),
        ("https://a.blob.x/c?sig=SECRET", "https://a.blob.x/c: "),
        ("https://a.blob.x/c/d#sig=SECRET", "https://a.blob.x/c/d: "),
        ("https://user:SECRET@a.blob.x/c/d", "https://a.blob.x/c/d: "),
        ("https://user:SECRET@a.blob.x/c/d?sig=SECRET", "https://a.blob.x/c/d: "),
        ("https://user:SECRET[@a.blob.x/c/d", "is no address"),
        ("https://[bad/cont/x", "is no address"),
    ],
)
def test_what_names_no_place_is_refused_and_shows_no_secret(text: str, shown: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        place(text)
    assert shown in str(refusal.value)
    assert "SECRET" not in str(refusal.value)


def test_only_before_a_host_does_an_at_sign_mark_a_password() -> None:
    found = place("http://127.0.0.1:1/devstoreaccount1/cont/user@example.csv")
    assert found.path == "user@example.csv"


@pytest.mark.parametrize(
    ("sources", "target", "word"),
    [
        (["./a"], "./b", "cp\\(1\\)"),
        (["./a", "acc/cont/b"], "acc/cont", "one after the other"),
        (["-", "./a"], "acc/cont", "alone"),
        (["acc/cont/a"], "other/cont/b", "two accounts"),
        (["acc/one/a", "acc/two/b"], "./here", "several containers"),
    ],
)
def test_places_that_make_no_copy_are_refused_with_the_cure(
    sources: list[str], target: str, word: str
) -> None:
    with pytest.raises(InvalidArgument, match=word):
        require_direction([place(text) for text in sources], place(target))


@pytest.mark.parametrize(
    ("source", "target"),
    [("./a", "acc/cont"), ("acc/cont/a", "b"), ("acc/cont/a", "acc/two/b"), ("-", "acc/cont/x")],
)
def test_one_side_in_a_container_makes_a_copy(source: str, target: str) -> None:
    require_direction([place(source)], place(target))


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("", "https://acc.blob.core.windows.net/cont/b"),
        ("https://acc.blob.core.windows.net/", "https://acc.blob.core.windows.net/cont/b"),
        ("HTTPS://Acc.blob.cloud.example", "https://acc.blob.cloud.example/cont/b"),
        ("http://127.0.0.1:10000/acc", "http://127.0.0.1:10000/acc/cont/b"),
    ],
)
def test_an_account_is_the_same_by_its_name_and_by_a_url(endpoint: str, url: str) -> None:
    source, target = at_endpoints([place("acc/cont/a"), place(url)], endpoint)
    require_direction([source], target)
    assert source.container == target.container


def test_an_account_is_another_one_at_another_endpoint() -> None:
    texts = "acc/cont/a", "https://acc.blob.core.windows.net/cont/b"
    source, target = at_endpoints([place(text) for text in texts], "https://acc.blob.cloud.example")
    with pytest.raises(InvalidArgument, match=r"cloud\.example and .* two accounts"):
        require_direction([source], target)


# Where copies go


@pytest.mark.parametrize(
    ("source", "kind", "target", "found", "root"),
    [
        ("f", FILE, "acc/cont", DIRECTORY, "f"),
        ("f", FILE, "acc/cont/new", None, "new"),
        ("f", FILE, "acc/cont/new/", None, "new/f"),
        ("f", FILE, "acc/cont/there", DIRECTORY, "there/f"),
        ("f", FILE, "acc/cont/there", FILE, "there"),
        ("d/e", DIRECTORY, "acc/cont", DIRECTORY, "e"),
        ("d/e/", DIRECTORY, "acc/cont/there", DIRECTORY, "there/e"),
        ("d/e", DIRECTORY, "acc/cont/new", None, "new"),
        ("d/e", DIRECTORY, "acc/cont/new/", None, "new"),
        ("d/e/.", DIRECTORY, "acc/cont/there", DIRECTORY, "there"),
        ("d/e/./", DIRECTORY, "acc/cont/there", DIRECTORY, "there"),
        (".", DIRECTORY, "acc/cont", DIRECTORY, ""),
        ("../", DIRECTORY, "acc/cont", DIRECTORY, ""),
        ("acc/cont", DIRECTORY, "/here", DIRECTORY, "/here/cont"),
        ("acc/cont", DIRECTORY, "/new", None, "/new"),
        ("acc/cont/.", DIRECTORY, "/here", DIRECTORY, "/here"),
        ("acc/cont/f", FILE, "/", DIRECTORY, "/f"),
        ("acc/cont/f", FILE, ".", DIRECTORY, "./f"),
        ("acc/cont/link", LINK, "/here", DIRECTORY, "/here/link"),
    ],
)
def test_a_copy_goes_where_cp_would_put_it(
    source: str, kind: Entry, target: str, found: Entry | None, root: str
) -> None:
    assert root_for(place(source), kind, place(target), found, is_one_of_many=False) == root


@pytest.mark.parametrize(
    ("source", "kind", "target", "found", "many", "failure"),
    [
        ("d", DIRECTORY, "acc/cont/f", FILE, False, NotADirectory),
        ("f", FILE, "acc/cont/f/", FILE, False, NotADirectory),
        ("f", FILE, "acc/cont/new", None, True, NotADirectory),
        ("f", FILE, "acc/cont/f", FILE, True, NotADirectory),
        ("acc/cont/link/", LINK, "new", None, False, NotADirectory),
        ("acc/cont/link/.", LINK, "acc/cont/new", None, False, NotADirectory),
        ("-", FILE, "acc/cont", DIRECTORY, False, IsADirectory),
        ("-", FILE, "acc/cont/new/", None, False, IsADirectory),
    ],
)
def test_what_cp_refuses_is_refused(
    source: str, kind: Entry, target: str, found: Entry | None, many: bool, failure: type[Failure]
) -> None:
    with pytest.raises(failure):
        root_for(place(source), kind, place(target), found, is_one_of_many=many)


@pytest.mark.parametrize("root", ["a", "a/b", "a/b/c"])
def test_a_directory_is_not_copied_into_itself(root: str) -> None:
    with pytest.raises(InvalidArgument):
        refuse_inside_itself(place("acc/cont/a"), root, place("acc/cont"))


@pytest.mark.parametrize(("target", "root"), [("acc/cont", "ab"), ("acc/other", "a"), ("/a", "/a/b")])
def test_a_directory_is_copied_beside_itself(target: str, root: str) -> None:
    refuse_inside_itself(place("acc/cont/a"), root, place(target))


# What is copied


@pytest.mark.parametrize(
    ("source", "target", "rules", "step"),
    [
        (FILE, None, Rules(), Step.COPY),
        (FILE, FILE, Rules(), Step.COPY),
        (FILE, LINK, Rules(), Step.COPY),
        (FILE, FILE, Rules(no_clobber=True), Step.SKIP),
        (FILE, None, Rules(no_clobber=True), Step.COPY),
        (FILE, FILE, Rules(update=True), Step.SKIP),
        (FILE, entry(size_bytes=6), Rules(update=True), Step.COPY),
        (FILE, entry(mtime_ns=8), Rules(update=True), Step.COPY),
        (FILE, entry(mtime_ns=8), Rules(checksum=True), Step.COMPARE),
        (FILE, entry(size_bytes=6), Rules(checksum=True), Step.COPY),
        (LINK, LINK, Rules(checksum=True), Step.COMPARE),
        (DEVICE, DEVICE, Rules(checksum=True), Step.SKIP),
        (DEVICE, OTHER_DEVICE, Rules(checksum=True), Step.COPY),
        (LINK, LINK, Rules(update=True), Step.SKIP),
        (FILE, LINK, Rules(update=True), Step.COPY),
        (DIRECTORY, None, Rules(), Step.COPY),
        (DIRECTORY, DIRECTORY, Rules(no_clobber=True), Step.SKIP),
        (DIRECTORY, UNFINISHED, Rules(no_clobber=True), Step.COPY),
        (DIRECTORY, replace(UNFINISHED, blob=BLOB), Rules(no_clobber=True), Step.SKIP),
        (DIRECTORY, replace(DIRECTORY, blob=BLOB), Rules(), Step.RESTORE_TIMES),
        (replace(DIRECTORY, blob=BLOB), DIRECTORY, Rules(), Step.RESTORE_TIMES),
        (DIRECTORY, replace(DIRECTORY, blob=None), Rules(), Step.COPY),
        (DIRECTORY, entry(stat.S_IFDIR, mtime_ns=8), Rules(), Step.COPY),
    ],
)
def test_what_is_up_to_date_is_not_copied(
    source: Entry, target: Entry | None, rules: Rules, step: Step
) -> None:
    assert step_for(source, target, rules) is step


@pytest.mark.parametrize(
    ("source", "target"),
    [(FILE, DIRECTORY), (DIRECTORY, FILE), (LINK, DIRECTORY), (FILE, entry(stat.S_IFCHR))],
)
def test_a_directory_or_device_is_not_replaced_by_something_else(source: Entry, target: Entry) -> None:
    with pytest.raises(AlreadyExists):
        step_for(source, target, Rules())


def test_what_cannot_be_copied_says_why() -> None:
    with pytest.raises(InvalidArgument, match="no such name"):
        step_for(replace(FILE, problem="no such name"), None, Rules())


# Selection


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [
        ([], [], {"a.nc", "a.tmp", "d/b.nc", "d/cache/c.nc"}),
        (["*.nc"], [], {"a.nc", "d/b.nc", "d/cache/c.nc"}),
        ([], ["*.tmp"], {"a.nc", "d/b.nc", "d/cache/c.nc"}),
        (["*.nc"], ["cache"], {"a.nc", "d/b.nc"}),
        (["/*.nc"], [], {"a.nc"}),
        (["d/**"], ["d/cache/"], {"d/b.nc"}),
        (["d/*.nc"], [], {"d/b.nc"}),
    ],
)
def test_globs_select_as_in_gitignore(include: list[str], exclude: list[str], taken: set[str]) -> None:
    selection = Selection(include, exclude)
    paths = ["a.nc", "a.tmp", "d/b.nc", "d/cache/c.nc"]
    assert {path for path in paths if selection.takes(path, is_directory=False)} == taken


def test_nothing_below_an_excluded_directory_is_looked_at() -> None:
    selection = Selection([], ["cache/", "*.tmp"])
    assert not selection.enters("d/cache")
    assert selection.enters("d")
    assert selection.enters("")
    assert selection.takes("", is_directory=True)


@pytest.mark.parametrize("pattern", ["", "  ", "!x", "# x"])
def test_a_pattern_that_selects_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        Selection([pattern])


# The destination


@pytest.mark.parametrize("change", ["written", "replaced by a link", None])
def test_what_was_written_since_it_was_listed_is_not_deleted(tmp_path: Path, change: str | None) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    tree = LocalTree(tmp_path, Selection())
    (listed,) = tree.entries()
    if change == "written":
        file.write_text("new")
        os.utime(file, ns=(0, listed.attributes.mtime_ns + 1))
    elif change is not None:
        file.unlink()
        file.symlink_to("elsewhere")
    with pytest.raises(Changed, match="not deleted") if change else nullcontext():
        tree.remove(listed)
    assert os.path.lexists(file) == bool(change)


def test_a_directory_that_goes_before_it_is_listed_is_a_problem_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    tree = LocalTree(tmp_path, Selection())
    _, (part,) = tree.level()
    (tmp_path / "gone").rmdir()
    (found,) = tree.part(part)
    assert (found.path, found.problem) == ("gone", "No such file or directory")


@pytest.mark.parametrize("marker", ["t/d", "t/d/"])
def test_the_marker_of_a_directory_stays_as_long_as_there_are_names_below_it(marker: str) -> None:
    store = MemoryStore()
    for name in "t/d-beside", "t/d/excluded":
        store.put(name, b"bytes")
    store.put(marker, b"", {"hdi_isfolder": "true"})
    tree = RemoteTree(store, "t", DEFAULTS, Selection(exclude=["excluded"]))
    (directory,) = (each for each in tree.entries() if each.is_directory)
    assert not tree.remove(directory)
    assert marker in store.bodies
    store.delete("t/d/excluded", ALWAYS)
    assert tree.remove(directory)
    assert list(store.bodies) == ["t/d-beside"]


def test_a_catalogue_gives_each_entry_once_and_the_rest_from_below() -> None:
    entries = [entry(path=path) for path in ("b", "a/x", "a/y/z", "\udcff")]
    catalogue = Catalogue(replace(each, blob=BlobInfo(each.path, "1", 5, 0)) for each in entries)
    taken = catalogue.take("b")
    assert taken is not None
    assert taken.blob is not None
    assert catalogue.take("b") is None
    assert catalogue.take("missing") is None
    assert [each.path for each in catalogue.rest()] == ["\udcff", "a/y/z", "a/y", "a/x", "a"]
    directory = catalogue.take("a/y")
    assert directory is not None
    assert directory.is_directory
    catalogue.close()


def test_a_catalogue_for_which_the_disk_has_no_room_names_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    monkeypatch.setattr("blobfs.copying.catalogue.CACHE_KIB", 64)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * KiB, hard))  # of any one file
    try:
        with pytest.raises(NoSpace, match=f"^{tmp_path}: .* TMPDIR"):
            Catalogue(entry(path=f"directory/{number}") for number in range(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_catalogue_knows_what_is_below_a_file() -> None:
    blobs = [BlobInfo(name, "1", 5, 0) for name in ("a", "b", "b/x", "b-")]
    catalogue = Catalogue(entry_of_blob(blob.name, blob, DEFAULTS) for blob in blobs)
    catalogue.take("a")
    assert catalogue.file_above("a/b/c") == "a"
    for path in ("a", "b/y", "b/x", "c/d"):
        assert catalogue.file_above(path) is None
    catalogue.close()


@pytest.mark.parametrize("marker_first", [True, False])
def test_a_directory_with_a_blob_of_its_own_is_that_blob(marker_first: bool) -> None:
    marker = BlobInfo("a", "1", 0, 0, {"hdi_isfolder": "true"})
    entries = [
        entry_of_blob("a", marker, DEFAULTS),
        entry_of_blob("a/x", BlobInfo("a/x", "2", 1, 0), DEFAULTS),
    ]
    catalogue = Catalogue(entries if marker_first else reversed(entries))
    found = catalogue.take("a")
    assert found is not None
    assert found.blob == marker
    catalogue.close()


@pytest.mark.parametrize("metadata", [{}, {"hdi_isfolder": "true"}])
@pytest.mark.parametrize("size_bytes", [0, 3])
@pytest.mark.parametrize("is_turned", [False, True])
def test_of_two_blobs_with_one_path_only_one_can_be_taken_and_the_other_is_in_the_rest(
    metadata: dict[str, str], size_bytes: int, is_turned: bool
) -> None:
    blobs = [
        BlobInfo("a/x", "1", 0, 0, metadata),
        BlobInfo("a/x/", "2", size_bytes, 0),  # a file if it has bytes
        BlobInfo("a/x/y", "3", 5, 0),
    ]
    entries = [entry_of_blob(blob.name.removesuffix("/"), blob, DEFAULTS) for blob in blobs]
    catalogue = Catalogue(reversed(entries) if is_turned else entries)
    found = catalogue.take("a/x")
    assert found is not None
    assert found.blob == (blobs[1] if size_bytes == 0 and not metadata else blobs[0])
    assert catalogue.take("a/x") is None
    rest = [each.blob.name for each in catalogue.rest() if each.blob is not None]
    assert rest == ["a/x/y", *({"a/x", "a/x/"} - {found.blob.name})]
    catalogue.close()


def test_a_blob_that_is_listed_twice_is_one() -> None:
    twice = [replace(entry(path="x"), blob=BLOB)] * 2
    catalogue = Catalogue(twice)
    assert catalogue.take("x") == twice[0]
    assert list(catalogue.rest()) == []
    catalogue.close()


def test_a_unit_of_work_travels_between_processes() -> None:
    blob = BlobInfo("name", "etag", 5, 7, {"modtime": "1"}, content_md5=bytes(16))
    work = Work(entry_of_blob("name", blob, DEFAULTS), "name", "/target", virtual_directory("x"))
    assert pickle.loads(pickle.dumps(work)) == work
    assert len(pickle.dumps(work)) < 2000
