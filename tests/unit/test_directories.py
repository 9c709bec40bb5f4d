"""Open directories."""

import pytest
from syscalls import write

from blobfs.errors import BadHandle
from blobfs.filesystem.filesystem import Filesystem


def test_listing_of_an_open_directory_stays_as_it_was_until_read_again(fs: Filesystem) -> None:
    write(fs, "/a", b"")
    handle = fs.directories.open("/")
    first = [name for name, _ in fs.directories.read(handle, restart=True)]
    write(fs, "/b", b"")
    assert [name for name, _ in fs.directories.read(handle, restart=False)] == first == [".", "..", "a"]
    assert len(fs.directories.read(handle, restart=True)) == 4
    fs.directories.close(handle)
    with pytest.raises(BadHandle):
        fs.directories.read(handle, restart=False)
