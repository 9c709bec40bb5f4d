"""What a copy without a mount is made of, put together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from unix import umask

from blobfs.copies import session
from blobfs.copy_session import Route, Session
from blobfs.copying.interruption import Interruption
from blobfs.copying.places import Container, Place, place_of
from blobfs.copying.report import Report, Unwatched
from blobfs.copying.trees import RemoteTree
from blobfs.settings import ContentSettings, CopySettings, ServiceSettings, SessionSettings

THERE = Place("there", "there", Container("devstoreaccount1", "results"))
HERE = Place("here", "here")


@contextmanager
def opened(*, recursive: bool = False) -> Iterator[Session]:
    """Give a session that sends nothing."""
    service = ServiceSettings("devstoreaccount1", "results")
    settings = SessionSettings(service, ContentSettings(), CopySettings(recursive=recursive))
    with session(settings, Report(Unwatched()), Interruption()) as it:
        yield it


def test_the_umask_is_learned_without_being_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that set it at once could leave the process with the other's."""
    with umask(0o027):
        with monkeypatch.context() as patched:
            patched.delattr(os, "umask")
            with opened() as copies:
                tree = copies.source_tree(Route(THERE, HERE, HERE.path))
        assert isinstance(tree, RemoteTree)
        assert tree.defaults.directory_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("ending", "is_directory"), [("", False), ("/", True), ("/.", True), ("/./", True), ("//", True)]
)
def test_a_link_that_a_path_goes_through_is_followed(tmp_path: Path, ending: str, is_directory: bool) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").touch()
    (tmp_path / "link").symlink_to("real")
    source = place_of(f"{tmp_path}/link{ending}", lambda _: False)
    with opened(recursive=True) as copies:
        root = copies.source_tree(Route(source, THERE, THERE.path)).root()
    assert root is not None
    assert root.is_directory == is_directory
