"""Systems that mount a container: how each is started with its best options, and taken down."""

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from waiting import wait_until

from bench.programs import PROJECT, Failed, Program, rclone_environment, said, trust
from bench.services import Service
from blobfs.cli.control import commit_all_below
from blobfs.kernel.read_ahead import READ_AHEAD_KIB

MOUNT_SECONDS = 30.0
UPLOADS_SECONDS = 300.0
QUIET_CHECKS = 5  # in a row


@dataclass(frozen=True, slots=True)
class MountSystem(Program):
    """A program that mounts. Subclasses know its command line."""

    def command(self, service: Service, container: str, mountpoint: Path, state: Path) -> list[str]:
        """Return what mounts and stays in the foreground; `state` is an empty directory for its files."""
        raise NotImplementedError

    def environment(self, service: Service, container: str) -> Mapping[str, str]:
        """Return what it needs to know besides."""
        return {}

    def adjust(self, mountpoint: Path) -> None:
        """Do what is left to do once it is mounted."""

    def wait_for_uploads(self, mountpoint: Path, state: Path) -> None:
        """Wait until the service has everything; at once for those whose close() promises that."""

    @contextmanager
    def mounted(self, service: Service, container: str, mountpoint: Path) -> Iterator[tuple[int, Path]]:
        """Mount, and unmount in the end; yields the process and its state. Raises Failed."""
        with tempfile.TemporaryDirectory(prefix=f"bench-{self.name}-") as folder:
            state = Path(folder)
            command = self.command(service, container, mountpoint, state)
            environment = {**os.environ, **self.environment(service, container)}
            with (state / "log").open("w") as log:
                process = subprocess.Popen(
                    command, env=environment, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            try:
                _wait_for_mount(process, mountpoint, state / "log")
                self.adjust(mountpoint)
                yield process.pid, state
            finally:
                _take_down(process, mountpoint)


@dataclass(frozen=True, slots=True)
class Blobfs(MountSystem):
    """This project, from this directory."""

    @property
    def program(self) -> str:
        return sys.executable

    @property
    def version(self) -> str:
        commit = said("git", "-C", str(PROJECT), "rev-parse", "--short", "HEAD")
        return f"{said(sys.executable, '-m', 'blobfs', '--version').split()[-1]} ({commit})"

    def command(self, service: Service, container: str, mountpoint: Path, state: Path) -> list[str]:
        trust = ["--ca-file", str(service.certificate)] if service.certificate else []
        where = [service.server.account, container, str(mountpoint), "--endpoint", service.endpoint]
        return [sys.executable, "-m", "blobfs", "mount", *where, *trust, "--foreground", *self.options]


@dataclass(frozen=True, slots=True)
class BlobfsWriteBack(Blobfs):
    """This project, with uploads behind close()."""

    def command(self, service: Service, container: str, mountpoint: Path, state: Path) -> list[str]:
        own = ["--spool-dir", str(state / "spool")]
        return [*Blobfs.command(self, service, container, mountpoint, state), *own]

    def wait_for_uploads(self, mountpoint: Path, state: Path) -> None:
        """What `blobfs sync` asks of the mount, without the half second that a command takes to start."""
        commit_all_below(mountpoint)


@dataclass(frozen=True, slots=True)
class Rclone(MountSystem):
    """rclone mount."""

    @property
    def program(self) -> str:
        return "rclone"

    @property
    def version(self) -> str:
        return said("rclone", "version").partition("\n")[0]

    def command(self, service: Service, container: str, mountpoint: Path, state: Path) -> list[str]:
        own = ["--cache-dir", str(state / "cache"), "--rc", "--rc-no-auth"]
        own += ["--rc-addr", f"unix://{state}/rc"]
        where = [f"bench:{container}", str(mountpoint)]
        return ["rclone", "mount", *where, *own, *self.options]

    def environment(self, service: Service, container: str) -> Mapping[str, str]:
        return rclone_environment(service)

    def wait_for_uploads(self, mountpoint: Path, state: Path) -> None:
        """Its cached mode uploads after close(), and learns of a close() only after it returned.

        With a write-back of zero it would not count its uploads.
        """
        quiet = 0

        def is_quiet() -> bool:
            nonlocal quiet
            uploads = re.search(rb'"uploads(InProgress|Queued)": *[1-9]', _asked(state / "rc", "vfs/stats"))
            quiet = 0 if uploads else quiet + 1
            return quiet > QUIET_CHECKS

        try:
            wait_until(is_quiet, UPLOADS_SECONDS)
        except AssertionError as late:
            raise Failed(f"{self.name} did not upload everything: {late}") from None


@dataclass(frozen=True, slots=True)
class Blobfuse2(MountSystem):
    """blobfuse2, if it is on PATH."""

    @property
    def program(self) -> str:
        return "blobfuse2"

    @property
    def version(self) -> str:
        return said("blobfuse2", "--version").splitlines()[-1]  # what it logs comes before

    def command(self, service: Service, container: str, mountpoint: Path, state: Path) -> list[str]:
        own = [f"--tmp-path={state / 'cache'}", f"--default-working-dir={state}", "--log-type=silent"]
        own += ["--disable-version-check=true", "--foreground=true"]
        return ["blobfuse2", "mount", str(mountpoint), *own, *self.options]

    def environment(self, service: Service, container: str) -> Mapping[str, str]:
        return {
            "AZURE_STORAGE_ACCOUNT": service.server.account,
            "AZURE_STORAGE_ACCOUNT_TYPE": "block",
            "AZURE_STORAGE_ACCOUNT_CONTAINER": container,
            "AZURE_STORAGE_ACCESS_KEY": service.server.key,
            "AZURE_STORAGE_BLOB_ENDPOINT": service.endpoint,
            **trust(service),
        }


@dataclass(frozen=True, slots=True)
class Zeros(MountSystem):
    """blobfs's own binding with nothing behind it: what FUSE costs."""

    @property
    def program(self) -> str:
        return sys.executable

    @property
    def version(self) -> str:
        return "this project's binding"

    def command(self, service: Service, container: str, mountpoint: Path, state: Path) -> list[str]:
        return [sys.executable, "-m", "bench.zeros", str(mountpoint), *self.options]

    def adjust(self, mountpoint: Path) -> None:
        """Give it the read-ahead that blobfs has, where that is allowed."""
        device = mountpoint.stat().st_dev
        with suppress(OSError):
            Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(
                f"{READ_AHEAD_KIB}\n"
            )


def _asked(path: Path, command: str) -> bytes:
    """Return the answer of rclone's remote control, which listens on a local socket."""
    with socket.socket(socket.AF_UNIX) as connected, closing(HTTPConnection("localhost")) as connection:
        connected.connect(str(path))
        connection.sock = connected
        connection.request("POST", f"/{command}")
        return connection.getresponse().read()


def _wait_for_mount(process: subprocess.Popen[bytes], mountpoint: Path, log: Path) -> None:
    with suppress(AssertionError):
        wait_until(lambda: os.path.ismount(mountpoint) or process.poll() is not None, MOUNT_SECONDS)
    if not os.path.ismount(mountpoint):
        raise Failed(f"it did not mount: {log.read_text()[-500:]}")


def _take_down(process: subprocess.Popen[bytes], mountpoint: Path) -> None:
    """Unmount politely, or else by force. Nothing is left in any case."""
    if os.path.ismount(mountpoint):
        unmount = ["fusermount3", "-u", str(mountpoint)]
        if subprocess.run(unmount, stderr=subprocess.DEVNULL, check=False).returncode:
            subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=False)
    try:
        process.wait(timeout=MOUNT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
