"""What a mount says of itself: to people, programs, shell scripts and Prometheus."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mounts import Mounts, blobfs, run
from ports import reserved_port
from prometheus_client.parser import text_string_to_metric_families
from responder.control import Responder
from responder.faults import Fault, Rule
from tokens import container_sas
from unix import ALICE, as_user
from waiting import wait_until

MiB = 1 << 20
MANY = 250
LONG_NAME = "n" * 200
ORDERED = "^(GET|HEAD|PUT|DELETE) /"


@pytest.fixture
def container(service: Responder) -> str:
    name = uuid4().hex
    service.create_container(name)
    return name


@pytest.fixture
def mount(service: Responder, container: str) -> Iterator[Mounts]:
    with Mounts(service, container, "libfuse3") as mounts:
        yield mounts
        service.order()


def status_of(mountpoint: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(os.getxattr(mountpoint, "user.blobfs.status"))
    return status


def fact(mountpoint: Path, name: str) -> str:
    """Ask as a shell script does."""
    return run(
        "getfattr", "--only-values", "--absolute-names", "-n", f"user.blobfs.status.{name}", mountpoint
    ).stdout


def test_status_counts_what_passed(mount: Mounts, tmp_path: Path) -> None:
    path = mount("--cache-dir", tmp_path / "cache", "--memory", "64MiB").path
    (path / "file").write_bytes(os.urandom(3 * MiB))
    assert len((path / "file").read_bytes()) == 3 * MiB

    ended = blobfs("status", path, "--json")
    (status,) = json.loads(ended.stdout)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert status["mountpoint"] == str(path)
    assert status["sent_bytes_per_second"] >= 0
    assert status["program_written_bytes"] == 3 * MiB
    assert status["sent_bytes"] >= 3 * MiB
    assert status["received_bytes"] > 0
    assert status["requests"]["PUT blob"] + status["requests"].get("PUT block", 0) >= 1
    assert status["memory_cache_limit_bytes"] < status["memory_limit_bytes"] < 64 * MiB
    assert status["disk_cache_limit_bytes"] == 10 * 1024 * MiB
    assert (status["uncommitted_files"], status["uncommitted_bytes"], status["uncommitted"]) == (0, 0, [])
    assert status["settings"]["memory_bytes"] == 64 * MiB
    assert status["credential_kind"] == "account key"
    assert status["credential_left_seconds"] is None
    assert status["cost_usd"] > 0
    assert status["service_answers"]


def test_reads_are_counted_by_where_the_bytes_were(mount: Mounts, tmp_path: Path) -> None:
    writer = mount()
    (writer.path / "file").write_bytes(os.urandom(10 * MiB))
    for _ in range(2):
        mounted = mount("--cache-dir", tmp_path / "cache")
        (mounted.path / "file").read_bytes()
        first = status_of(mounted.path)
        with open(mounted.path / "file", "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert len(file.read()) == 10 * MiB
        second = status_of(mounted.path)
        mount.unmount(mounted)
    assert second["memory_cache_hits"] > first["memory_cache_hits"] > 0
    assert second["memory_cache_misses"] == first["memory_cache_misses"] > 0
    assert first["disk_cache_hits"] > 0
    assert second["program_read_bytes"] == 2 * first["program_read_bytes"] == 20 * MiB


@contextmanager
def writing(path: Path, count: int) -> Iterator[None]:
    """Have another process keep a file open: any that this one starts would close its copy, and so commit."""
    script = f"file = open({str(path)!r}, 'wb', 0); file.write(bytes({count})); print(flush=True); input()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield
        holder.communicate(b"\n")


def test_a_shell_script_reads_single_numbers(mount: Mounts) -> None:
    path = mount().path
    with writing(path / "open", 100_000):
        assert (fact(path, "uncommitted_files"), fact(path, "uncommitted_bytes")) == ("1", "100000")
        said = blobfs("status", path).stdout
        assert "not committed  1 files and directories, 97.7 KiB written" in said
        assert "/open: still open" in said
    assert fact(path, "uncommitted_files") == "0"
    assert fact(path, "requests.LIST") == str(status_of(path)["requests"]["LIST"])
    assert (fact(path, "service_answers"), fact(path, "credential_kind")) == ("true", "account key")
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(path, "user.blobfs.status.nonsense")


def test_status_stays_readable_with_more_open_files_than_it_can_name(mount: Mounts) -> None:
    path = mount().path
    files = [open(path / f"{LONG_NAME}{number}", "wb") for number in range(MANY)]  # noqa: SIM115
    status = status_of(path)
    for file in files:
        file.close()
    assert status["uncommitted_files"] == MANY
    assert 0 < len(status["uncommitted"]) < MANY


def test_retries_damage_and_a_busy_service_are_counted(mount: Mounts, service: Responder) -> None:
    path = mount("--verify", "all").path
    service.order(Rule(pattern=ORDERED, kind="PUT blob", status=503, error_code="ServerBusy", count=2))
    body = bytes(300_000)  # a smaller one is kept in memory
    (path / "file").write_bytes(body)
    service.order(Rule(pattern=ORDERED, kind="GET blob", fault=Fault.FLIP, count=1))
    with open(path / "file", "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == body
    mount.tolerate_log("busy|damaged bytes arrived")
    status = status_of(path)
    assert (status["retries"], status["busy_replies"]) == (2, 2)
    assert status["damaged_replies"] == 1
    assert status["requests"]["PUT blob"] == 3


def test_an_outage_shows(mount: Mounts, service: Responder) -> None:
    path = mount("--timeout", "0.5").path
    service.freeze()
    try:
        with pytest.raises(OSError, match="Errno"):
            (path / "file").write_bytes(b"content")
        assert fact(path, "service_answers") == "false"
    finally:
        service.thaw()
    wait_until(lambda: blobfs("sync", path).returncode == 0)
    mount.tolerate_log(".")


def test_status_says_when_a_sas_ends(mount: Mounts, container: str, tmp_path: Path) -> None:
    token = container_sas(container, life=timedelta(hours=3))
    file = tmp_path / "sas"
    file.touch(0o600)
    file.write_text(token)
    path = mount("--sas-file", file).path
    status = status_of(path)
    assert status["credential_kind"] == "SAS"
    assert 2 * 3600 < status["credential_left_seconds"] <= 3 * 3600
    said = blobfs("status", path).stdout
    assert f"SAS from {file}; ends in 2 h 59 min" in said
    assert token.rpartition("sig=")[2] not in said + json.dumps(status)


def test_status_of_what_is_no_mount_says_so(mount: Mounts, tmp_path: Path) -> None:
    ended = blobfs("status", tmp_path)
    assert (ended.returncode, ended.stderr) == (1, f"blobfs: {tmp_path} is not mounted by blobfs.\n")
    mounted = mount()
    mounted.kill()
    ended = blobfs("status", mounted.path)
    cure = f"Run blobfs umount {mounted.path}."
    assert (ended.returncode, ended.stderr) == (1, f"blobfs: {mounted.path}: its process has died. {cure}\n")
    ended = blobfs("status", mounted.path / "file")
    said = f"blobfs: {mounted.path} is a mount whose process has died. Run blobfs umount {mounted.path}"
    assert (ended.returncode, ended.stderr) == (1, f"{said}, then mount again.\n")


def test_status_of_a_directory_in_a_mount_names_the_mount(mount: Mounts) -> None:
    path = mount().path
    (path / "directory").mkdir()
    ended = blobfs("status", path / "directory")
    assert (ended.returncode, f"but lies inside a mount: {path}." in ended.stderr) == (1, True)


def test_without_a_mountpoint_status_tells_of_every_mount(mount: Mounts) -> None:
    paths = {str(mount().path), str(mount("--read-only").path)}
    found = {
        status["mountpoint"]: status["read_only"] for status in json.loads(blobfs("status", "--json").stdout)
    }
    assert paths <= set(found)
    assert sorted(found[path] for path in paths) == [False, True]


def test_another_users_mount_is_not_asked(mount: Mounts) -> None:
    path = mount().path
    with as_user(ALICE), pytest.raises(PermissionError):
        os.getxattr(path, "user.blobfs.status")


def test_watch_follows_the_numbers_until_it_is_interrupted(mount: Mounts) -> None:
    path = mount().path
    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "blobfs", "status", str(path), "--watch", "--interval", "0.2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=environment) as watching:
        os.close(inside)
        shown = _Screen(terminal)
        wait_until(lambda: "0 B written" in shown.text())
        (path / "file").write_bytes(bytes(2 * MiB))
        wait_until(lambda: "2.0 MiB written" in shown.text())
        watching.send_signal(signal.SIGINT)
        assert watching.wait() == 0
    os.close(terminal)


class _Screen:
    """What a program has written on a terminal."""

    def __init__(self, terminal: int) -> None:
        os.set_blocking(terminal, False)
        self._terminal = terminal
        self._text = ""

    def text(self) -> str:
        with suppress(BlockingIOError):
            self._text += os.read(self._terminal, 1 << 20).decode()
        return self._text


# Prometheus


def scrape(connection: HTTPConnection) -> dict[str, float]:
    """Read the metrics as Prometheus does; return them by name, requests with their kind."""
    connection.request("GET", "/metrics")
    reply = connection.getresponse()
    assert (reply.status, reply.headers.get_content_type()) == (200, "text/plain")
    text = reply.read().decode()
    connection.close()
    return {
        sample.name + sample.labels.get("kind", ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_gets_the_numbers_of_the_status(mount: Mounts) -> None:
    with reserved_port() as port:
        path = mount("--metrics", f"127.0.0.1:{port}").path
    (path / "file").write_bytes(bytes(MiB))
    metrics = scrape(HTTPConnection("127.0.0.1", port))
    status = status_of(path)
    assert metrics["blobfs_program_written_bytes_total"] == status["program_written_bytes"] == MiB
    assert metrics["blobfs_requests_totalPUT blob"] == status["requests"]["PUT blob"]
    assert metrics["blobfs_uncommitted_files"] == 0
    assert metrics["blobfs_service_answers"] == 1
    assert "blobfs_credential_left_seconds" not in metrics


def test_a_unix_socket_is_for_its_owner_and_gone_with_the_mount(mount: Mounts, tmp_path: Path) -> None:
    place = tmp_path / "metrics.sock"
    mounted = mount("--metrics", f"unix:{place}")
    assert place.stat().st_mode & 0o777 == 0o600
    connection = HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(place))
    assert scrape(connection)["blobfs_mount"] == 1
    mounted.kill()
    assert place.exists()
    again = mount("--metrics", f"unix:{place}")
    mount.unmount(again)
    assert not place.exists()


def test_an_address_that_cannot_be_is_refused_before_anything_is_sent(mount: Mounts, tmp_path: Path) -> None:
    nowhere = ("--endpoint", "http://127.0.0.1:9/account", "--create-container")
    place = tmp_path / "missing" / "metrics.sock"
    ended = blobfs(*mount.arguments(mount.new_mountpoint()), *nowhere, "--metrics", f"unix:{place}")
    assert ended.returncode == 2
    assert f"cannot serve metrics on {place}: No such file or directory" in ended.stderr


def test_a_taken_address_fails_the_mount(mount: Mounts, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        ended = blobfs(*mount.arguments(mount.new_mountpoint()), "--metrics", address)
    assert ended.returncode == 1
    assert f"cannot serve metrics on {address}: Address already in use" in ended.stderr
    socket_of_another, file = tmp_path / "taken.sock", tmp_path / "file"
    mount("--metrics", f"unix:{socket_of_another}")
    file.touch()
    for place in (socket_of_another, file):
        ended = blobfs(*mount.arguments(mount.new_mountpoint()), "--metrics", f"unix:{place}")
        assert ended.returncode == 1
        assert f"cannot serve metrics on {place}: Address already in use" in ended.stderr
        assert place.exists()
