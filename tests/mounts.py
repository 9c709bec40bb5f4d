"""Real mounts for tests: the command itself, in the background, on directories of the test's own."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import pytest

from blobfs.cli.control import read_status

PROJECT = Path(__file__).parents[1]
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # with this project's commands
COMMAND_SECONDS = 120.0  # no command of ours takes so long; one that hangs fails its test
TROUBLE = re.compile(r"^\S+ \S+ (WARNING|ERROR|CRITICAL) |^Traceback ", re.MULTILINE)

on_both_bindings = pytest.mark.parametrize("binding", ["libfuse3", "libfuse2"], indirect=True)


def run(*command: str | Path, cwd: Path = PROJECT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it said."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean_environment(), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


def blobfs(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return run(sys.executable, "-m", "blobfs", *arguments, cwd=PROJECT, **environment)


def bash(directory: Path, script: str, **environment: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a directory as a user would, with this project's commands on PATH."""
    names = {name: str(value) for name, value in environment.items()}
    return run("bash", "-c", script, cwd=directory, **{"PATH": PATH, **names})


def shell(directory: Path, script: str, **environment: object) -> str:
    """Run a script likewise and return what it printed. Fails the test if a command in it fails."""
    ended = bash(directory, f"set -eu\n{script}", **environment)
    assert ended.returncode == 0, f"{script}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def clean_environment() -> Mapping[str, str]:
    """Return the environment without what could change a mount."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("BLOBFS_", "AZURE_"))}


class Service(Protocol):
    """What is mounted: an emulator, a responder, or a relay in front of one."""

    account: str
    endpoint: str


@dataclass
class Mount:
    """One mounted directory."""

    path: Path
    log: Path
    pid: int
    announcement: str  # what the command printed
    has_died: bool = False

    def kill(self) -> None:
        """Let the serving process die as in a crash, and wait until it has."""
        with self.ending():
            os.kill(self.pid, signal.SIGKILL)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Wait, after what ends it, until the serving process has ended: it may still write its log."""
        process = os.pidfd_open(self.pid)
        try:
            yield
            select.select([process], [], [])
        finally:
            os.close(process)
        self.has_died = True


class Mounts:
    """Makes mounts of one container, and takes them down when the test ends."""

    def __init__(self, azurite: Service, container: str, binding: str) -> None:
        self._azurite = azurite
        self._container = container
        self._binding = binding
        # Not pytest's own directory: other users may not enter that.
        self._directory = Path(tempfile.mkdtemp(prefix="blobfs-test-"))
        self._directory.chmod(0o755)
        self._mounts: list[Mount] = []
        self._expected: list[str] = []
        self._tolerated: list[str] = []

    def __enter__(self) -> "Mounts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, *options: str | Path, **environment: str) -> Mount:
        """Mount the container with these options too. Fails the test if the command fails."""
        path = self.new_mountpoint()
        log = path.with_suffix(".log")
        ended = blobfs(*self.arguments(path), "--log-file", log, *options, **environment)
        assert ended.returncode == 0, ended.stderr
        return self.adopt(path, log, ended.stdout)

    def arguments(self, mountpoint: Path) -> list[str]:
        """Return the arguments that mount the container there."""
        account = self._azurite.account
        where = [account, self._container, str(mountpoint)]
        return ["mount", *where, "--endpoint", self._azurite.endpoint, "--binding", self._binding]

    def new_mountpoint(self) -> Path:
        """Return a new empty directory."""
        return Path(tempfile.mkdtemp(prefix="mount-", dir=self._directory))

    def adopt(self, path: Path, log: Path, announcement: str = "") -> Mount:
        """Look after a mount that the test made itself."""
        status = read_status(path)
        assert status is not None
        mount = Mount(path, log, status.pid, announcement)
        self._mounts.append(mount)
        return mount

    def unmount(self, mount: Mount) -> None:
        """Unmount as a user does. Whatever happens, nothing stays mounted and no process is left."""
        self._mounts.remove(mount)
        had_died = mount.has_died
        ended = blobfs("umount", mount.path)
        if ended.returncode:
            self._remove(mount)
        assert ended.returncode == 0 or had_died, ended.stderr + mount.log.read_text()

    def give_up(self, mount: Mount) -> None:
        """Unmount as a user does who gives up what cannot be committed. Fails the test if nothing is."""
        self._mounts.remove(mount)
        with mount.ending():
            ended = blobfs("umount", "--force", mount.path)
        assert "giving up what is not committed" in ended.stderr, ended.stderr

    def expect_log(self, pattern: str) -> None:
        """Claim log lines: they must come, and are no reason to fail."""
        self._expected.append(pattern)

    def tolerate_log(self, pattern: str) -> None:
        """Claim log lines that may come."""
        self._tolerated.append(pattern)

    def close(self) -> None:
        """Unmount what is left and judge the logs."""
        try:
            while self._mounts:
                self.unmount(self._mounts[-1])
            self._judge("".join(log.read_text() for log in self._directory.rglob("*.log")))
        finally:
            for mount in self._mounts:
                self._remove(mount)
            shutil.rmtree(self._directory)

    def _remove(self, mount: Mount) -> None:
        if is_mountpoint(mount.path):
            run(*(["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]), mount.path)
        if not mount.has_died and Path(f"/proc/{mount.pid}").exists():
            mount.kill()

    def _judge(self, log: str) -> None:
        entries = re.split(r"^(?=\d{4}-)", log, flags=re.MULTILINE)
        for pattern in self._expected:
            assert re.search(pattern, log), f"the log has nothing like {pattern!r}:\n{log}"
        trouble = [
            entry
            for entry in entries
            if TROUBLE.search(entry)
            and not any(re.search(pattern, entry) for pattern in (*self._expected, *self._tolerated))
        ]
        assert not trouble, "".join(trouble)


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Have a disk there of a size such as 1m."""
    path.mkdir(mode=0o700)
    assert run("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "spool", path).returncode == 0
    try:
        yield path
    finally:
        run("umount", "-l", path)


def is_mountpoint(path: Path) -> bool:
    """Tell without asking the filesystem itself, which may be dead."""
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())
