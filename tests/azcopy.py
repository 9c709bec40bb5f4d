"""AzCopy, the service's own copy tool: how to run it, and what of a tree it keeps."""

import stat
from pathlib import Path
from urllib.parse import urlsplit

from azurite import Azurite
from mounts import run
from tokens import container_sas
from trees import snapshot

PRESERVE = ("--preserve-posix-properties=true", "--preserve-symlinks=true", "--recursive")


def url_of(azurite: Azurite, container: str, name: str) -> str:
    """Return where AzCopy finds a blob or all blobs below a name, with the right to use them."""
    token = container_sas(container)
    return f"{azurite.endpoint}/{container}/{name}?{token}"


def upload(source: Path, url: str, state: Path, *options: str) -> None:
    """Copy what is in a directory to below a URL. Its logs and plans go to `state`."""
    _copy(state, f"{source}/*", url, "--put-md5", "--from-to=LocalBlob", *options)


def download(url: str, target: Path, state: Path, *options: str, links_in: str = "") -> None:
    """Copy what is below a URL into a directory under its name. Every file's MD5 must be there and right.

    AzCopy 10.32 fails if it makes a symbolic link before the first file of its directory: so `links_in`,
    below the name, is made before.
    """
    if links_in:
        (target / urlsplit(url).path.rpartition("/")[2] / links_in).mkdir(parents=True, exist_ok=True)
    required = () if any(option.startswith("--check-md5") for option in options) else (_CHECK_MD5,)
    _copy(state, url, str(target), "--from-to=BlobLocal", *required, *options)


_CHECK_MD5 = "--check-md5=FailIfDifferentOrMissing"


def _copy(state: Path, *arguments: str) -> None:
    environment = {
        "AZCOPY_LOG_LOCATION": str(state / "logs"),
        "AZCOPY_JOB_PLAN_LOCATION": str(state / "plans"),
        "AZCOPY_DISABLE_SYSLOG": "true",
        "AZCOPY_CONCURRENCY_VALUE": "4",
    }
    ended = run("azcopy", "copy", *arguments, *PRESERVE, cwd=state, **environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def kept_by_azcopy(root: Path) -> dict[str, tuple[object, ...]]:
    """Return what AzCopy brings back: of a file all but set-id bits, of a link its target, no directory."""
    kept: dict[str, tuple[object, ...]] = {}
    for name, (mode, uid, gid, mtime_ns, content) in snapshot(root).items():
        kind, permissions = stat.S_IFMT(int(str(mode), 8)), int(str(mode), 8) & 0o777
        if kind == stat.S_IFLNK:
            kept[name] = kind, content
        elif kind == stat.S_IFREG:
            kept[name] = kind, permissions, uid, gid, mtime_ns, content
    return kept
