"""A directory tree with everything in it that copies must keep, and ways to look at trees."""

import hashlib
import os
import random
import stat
from pathlib import Path


def make_tree(root: Path) -> Path:
    """Fill a new directory: nested files of many sizes, odd names, links, empty directories, a fifo."""
    root.mkdir()
    for name in ("empty", "private", "a/b/c/d", "with space"):
        (root / name).mkdir(parents=True)
    content = random.Random(0).randbytes(9 << 20)  # more than one block
    sizes = {
        "none": 0,
        "one": 1,
        "a/small": 4095,
        "a/b/page": 4096,
        "a/b/c/odd": 100_001,
        "large": len(content),
    }
    for name, size in sizes.items():
        (root / name).write_bytes(content[:size])
    for name in ("grüße.txt", "with space/and 'quotes' \"both\"", "100%", "a?b#c&d+e=f;g,h@i!", "-rf", "~"):
        (root / name).write_text(name)
    (root / "program").write_text("#!/bin/sh\necho hello\n")
    (root / "link").symlink_to("a/b/page")
    (root / "a" / "dangling").symlink_to("/no/where/at all")
    (root / "a" / "to directory").symlink_to("b")
    os.mkfifo(root / "fifo", 0o640)
    _set_attributes(root)
    return root


def _set_attributes(root: Path) -> None:
    modes = {"program": 0o755, "one": 0o400, "none": 0o4711, "private": 0o700, "a": 0o2775, "empty": 0o1777}
    for name, owner in (("one", 7), ("link", 8), ("a", 9), ("private", 4_000_000_000)):
        os.lchown(root / name, owner, owner + 1)
    for name, mode in modes.items():
        (root / name).chmod(mode)
    # Times last, and below before above, because everything else changes them.
    for number, path in enumerate(sorted([root, *root.rglob("*")], reverse=True)):
        time_ns = 1_234_567_890_123_456_789 + number * 1_000_000_007
        os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what a copy must have in common with a tree, by relative path."""
    return {str(path.relative_to(root)): _describe(path) for path in [root, *root.rglob("*")]}


def contents(root: Path) -> dict[str, str]:
    """Return the digest of every file and the target of every link, by relative path."""
    return {str(path.relative_to(root)): _content(path) for path in root.rglob("*")}


def _describe(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    return oct(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns, _content(path)


def _content(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if stat.S_ISREG(mode) else ""
