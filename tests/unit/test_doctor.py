"""The examination, against services that refuse, lie about the time, or are not there."""

import errno
import json
import re
import resource
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from azurite import Azurite
from certificates import make_certificate
from click.testing import CliRunner, Result
from responder.control import Responder
from responder.faults import Rule
from responder.recipes import Recipe
from tokens import container_sas

from blobfs.blocks import MiB
from blobfs.cli.main import blobfs
from blobfs.doctor.findings import Level
from blobfs.doctor.machine import UDEV_RULE, Machine

WriteSas = Callable[..., Path]


@pytest.fixture(autouse=True)
def little_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blobfs.doctor.network.BANDWIDTH_SECONDS", 0.05)


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """For services that are not there or not trusted: each question is asked again until its time is over."""
    monkeypatch.setattr("blobfs.azure.inspection.ANSWER_SECONDS", 1.0)


def run(account: str, container: str, endpoint: str, *options: str | Path) -> Result:
    arguments = ["doctor", account, container, "--endpoint", endpoint, *options]
    return CliRunner().invoke(blobfs, [str(argument) for argument in arguments])


def examine(service: Responder | Azurite, container: str, *options: str | Path) -> dict[str, tuple[str, str]]:
    """Return level and text of each finding about the service, by check."""
    result = run(service.account, container, service.endpoint, "--json", *options)
    findings = json.loads(result.stdout)
    problems = [finding for finding in findings if finding["level"] == "problem"]
    assert result.exit_code == bool(problems)
    assert all(finding["cure"] for finding in problems)
    return {finding["check"]: (finding["level"], finding["text"]) for finding in findings}


def levels(found: dict[str, tuple[str, str]], *checks: str) -> list[str]:
    return [found[check][0] for check in checks]


@pytest.fixture
def box(responder: Responder) -> str:
    name = uuid.uuid4().hex
    responder.create_container(name)
    responder.make_blobs(name, Recipe("large", size_bytes=8 * MiB))
    return name


@pytest.fixture
def sas(box: str, tmp_path: Path) -> WriteSas:
    def write(permissions: str, life: timedelta = timedelta(days=7)) -> Path:
        path = tmp_path / "sas"
        path.touch(0o600)
        path.write_text(container_sas(box, permissions, life))
        return path

    return write


MAY = ("may list", "may read", "may create", "may write", "may delete")


def test_a_sound_account_passes_and_nothing_is_left_there(azurite: Azurite, container: str) -> None:
    with azurite.client() as client:
        box = client.get_container_client(container)
        box.upload_blob("blob", bytes(MiB))
        found = examine(azurite, container)
        assert [blob.name for blob in box.list_blobs(include=["uncommittedblobs"])] == ["blob"]
    assert set(
        levels(found, *MAY, "DNS", "connection", "clock", "credential", "bandwidth", "versioning")
    ) == {"ok"}
    assert "StorageV2" in found["account"][1]


def test_the_report_for_people_has_a_line_for_each_finding(responder: Responder, box: str) -> None:
    result = run(responder.account, box, responder.endpoint, "--no-bandwidth")
    assert result.exit_code == 0
    assert "ok      may delete: yes\n" in result.stdout
    assert "received by" not in result.stdout


@pytest.mark.parametrize(
    ("permissions", "expected"),
    [
        ("racwdl", ["ok", "ok", "ok", "ok", "ok"]),
        ("rl", ["ok", "ok", "note", "note", "note"]),
        ("rcl", ["ok", "ok", "ok", "note", "note"]),
        ("racwl", ["ok", "ok", "ok", "ok", "note"]),
        ("r", ["problem", "ok", "note", "note", "note"]),
        ("l", ["ok", "problem", "note", "note", "note"]),
    ],
)
def test_what_a_sas_cannot_do_is_found_without_doing_it(
    responder: Responder,
    box: str,
    sas,
    permissions: str,
    expected: list[str],
) -> None:
    found = examine(responder, box, "--sas-file", sas(permissions), "--no-bandwidth")
    assert levels(found, *MAY) == expected
    with responder.client() as client:
        assert [blob.name for blob in client.get_container_client(box).list_blobs()] == ["large"]


def test_a_bandwidth_that_may_not_be_measured_is_no_problem(
    responder: Responder, box: str, sas: WriteSas
) -> None:
    assert examine(responder, box, "--sas-file", sas("l"))["bandwidth"][0] == "note"
    level, text = examine(responder, box, "--sas-file", sas("rl"))["bandwidth"]
    assert (level, "MiB/s received by 16 connections" in text) == ("ok", True)


def test_an_archived_or_replaced_blob_is_no_problem() -> None:
    with Responder() as service:
        service.create_container("box")
        with service.client() as client:
            for name, tier, size_bytes in ("old", "Archive", 2 * MiB), ("new", "Hot", MiB):
                blob = client.get_blob_client("box", name)
                blob.upload_blob(bytes(size_bytes))
                blob.set_standard_blob_tier(tier)
        assert examine(service, "box")["bandwidth"][0] == "ok"
        service.order(Rule(kind="GET blob", status=412, error_code="ConditionNotMet"))
        assert examine(service, "box")["bandwidth"][0] == "note"


def test_an_expired_sas_is_one_problem(responder: Responder, box: str, sas: WriteSas) -> None:
    found = examine(responder, box, "--sas-file", sas("racwdl", timedelta(hours=-1)))
    level, text = found["credential"]
    assert (level, "expired on" in text) == ("problem", True)
    assert "may list" not in found


def test_a_sas_that_ends_today_is_noted(responder: Responder, box: str, sas: WriteSas) -> None:
    level, text = examine(responder, box, "--sas-file", sas("racwdl", timedelta(hours=2)))["credential"]
    assert (level, "in 2.0 hours" in text) == ("note", True)


def test_a_key_of_another_account_is_refused(responder: Responder, box: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text("c2VjcmV0")
    assert examine(responder, box, "--account-key-file", key)["credential"][0] == "problem"


def test_a_missing_container_is_a_problem(responder: Responder) -> None:
    assert examine(responder, "absent")["container"] == (
        "problem",
        "does not exist (HTTP 404 ContainerNotFound)",
    )


@pytest.mark.usefixtures("impatience")
def test_a_refused_connection_is_a_problem_that_ends_the_examination() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}/devstoreaccount1"
    result = run("devstoreaccount1", "box", endpoint)
    assert result.exit_code == 1
    assert "problem service: LIST: 127.0.0.1" in result.stdout
    assert "Connection refused" in result.stdout
    assert result.stdout.rstrip().endswith("then run this again.")
    assert result.stderr == ""


def test_a_name_that_no_server_knows_is_a_problem() -> None:
    result = run("devstoreaccount1", "box", "https://blobfs.invalid")
    assert result.exit_code == 1
    assert "problem DNS: blobfs.invalid cannot be found" in result.stdout


def test_requests_that_go_past_a_proxy_are_not_said_to_go_through_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org, .invalid")
    result = run("devstoreaccount1", "box", "https://blobfs.invalid")
    assert "problem DNS: blobfs.invalid cannot be found" in result.stdout
    assert "proxy" not in result.stdout


def test_a_certificate_that_nobody_vouches_for_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(variable, raising=False)
    certificate, private_key = make_certificate(tmp_path)
    with Responder(certificate=certificate, private_key=private_key) as service:
        service.create_container("box")
        level, text = examine(service, "box")["service"]
        assert (level, "is not trusted" in text, "--ca-file" in text) == ("problem", True, True)
        found = examine(service, "box", "--ca-file", certificate)
    assert (found["connection"][0], found["connection"][1].endswith("by https")) == ("ok", True)


def test_wrong_usage_exits_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_SAS_TOKEN", raising=False)
    result = CliRunner().invoke(blobfs, ["doctor", "someaccount", "box"])
    assert result.exit_code == 2
    assert "no credential for the account someaccount" in result.stderr


class _SkewedHandler(BaseHTTPRequestHandler):
    skew_seconds = 0.0

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.send_header("x-ms-error-code", "AuthorizationFailure")
        self.end_headers()

    do_HEAD = do_PUT = do_DELETE = do_GET  # noqa: N815

    def date_time_string(self, timestamp: float | None = None) -> str:
        now = datetime.now(timezone.utc).timestamp() if timestamp is None else timestamp
        return super().date_time_string(int(now + self.skew_seconds))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def skewed() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _SkewedHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("skew_seconds", "level", "text"),
    [
        (0, "ok", "right to the second"),
        (120, "note", "1(19|20|21) s behind the service's"),
        (-3600, "problem", "(3599|360[01]) s ahead of the service's"),
    ],
)
def test_a_wrong_clock_is_found(
    skewed: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, skew_seconds: float, level: str, text: str
) -> None:
    monkeypatch.setattr(_SkewedHandler, "skew_seconds", skew_seconds)
    endpoint = f"http://127.0.0.1:{skewed.server_port}/devstoreaccount1"
    findings = json.loads(run("devstoreaccount1", "box", endpoint, "--json").stdout)
    (clock,) = (finding for finding in findings if finding["check"] == "clock")
    assert clock["level"] == level
    assert re.fullmatch(text, clock["text"])


# The machine


def machine(
    root: Path, *, is_admin: bool = False, kernel: str = "6.1.0-x", libfuse3: str = "3.14.0"
) -> Machine:
    found = {"libfuse3": libfuse3} if libfuse3 else {}
    return Machine(found, 512 * MiB, root=root, is_admin=is_admin, kernel=kernel)


def finding(machine: Machine, check: str) -> tuple[Level, str]:
    (found,) = [each for each in machine.examine() if each.check == check]
    return found.level, found.cure


def test_an_old_kernel_and_a_missing_libfuse_are_problems(tmp_path: Path) -> None:
    assert finding(machine(tmp_path), "kernel")[0] is Level.OK
    assert finding(machine(tmp_path, kernel="4.18.0-553.el8"), "kernel")[0] is Level.PROBLEM
    assert finding(machine(tmp_path, libfuse3=""), "libfuse")[0] is Level.PROBLEM
    assert finding(Machine({"libfuse2": "2.9"}, MiB, root=tmp_path), "libfuse")[0] is Level.NOTE


def test_a_job_with_few_open_files_is_a_problem_unless_it_may_have_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 4096))
    assert finding(machine(tmp_path), "open files")[0] is Level.OK
    monkeypatch.setattr("resource.getrlimit", lambda _: (64, 100))
    cure = "Have the limit of this login or job raised to 4096."
    assert finding(machine(tmp_path), "open files") == (Level.PROBLEM, cure)


def test_a_machine_without_the_device_is_told_how_to_get_it(tmp_path: Path) -> None:
    level, cure = finding(machine(tmp_path), "/dev/fuse")
    assert (level, "modprobe fuse" in cure) == (Level.PROBLEM, True)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/fuse").touch()
    assert finding(machine(tmp_path), "/dev/fuse")[0] is Level.OK


def test_other_users_need_a_line_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fuse.conf").write_text("#user_allow_other\n")
    level, cure = finding(machine(tmp_path), "--allow-other")
    assert (level, "user_allow_other" in cure) == (Level.NOTE, True)
    (tmp_path / "etc/fuse.conf").write_text("mount_max = 10\nuser_allow_other\n")
    assert finding(machine(tmp_path), "--allow-other")[0] is Level.OK


def test_a_configuration_that_may_not_be_read_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fuse.conf").touch()
    monkeypatch.setattr(Path, "read_text", refuse)
    found = machine(tmp_path)._other_users()
    assert (found.level, "you may not read" in found.text) == (Level.NOTE, True)


def test_a_job_with_less_memory_than_the_mount_may_take_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/slurm/job_7\n")
    group = tmp_path / "sys/fs/cgroup/slurm/job_7"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert finding(machine(tmp_path), "memory")[0] is Level.OK
    (group.parent / "memory.max").write_text(f"{400 * MiB}\n")
    assert finding(machine(tmp_path), "memory")[0] is Level.PROBLEM


def test_a_group_of_the_first_version_without_a_limit_is_said_to_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/job\n")
    group = tmp_path / "sys/fs/cgroup/memory/job"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (memory,) = [each for each in machine(tmp_path).examine() if each.check == "memory"]
    assert memory.text.startswith("without a limit")


@pytest.mark.parametrize(
    ("limit_bytes", "level"),
    [(resource.RLIM_INFINITY, Level.OK), (1024 * MiB, Level.OK), (768 * MiB, Level.PROBLEM)],
)
def test_a_job_with_fewer_addresses_than_a_mount_reserves_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_bytes: int, level: Level
) -> None:
    limits = {resource.RLIMIT_AS: limit_bytes}
    monkeypatch.setattr("resource.getrlimit", lambda kind: (limits.get(kind, resource.RLIM_INFINITY),) * 2)
    assert finding(machine(tmp_path), "address space")[0] is level


def test_who_cannot_raise_the_read_ahead_is_given_the_rule(tmp_path: Path) -> None:
    level, cure = finding(machine(tmp_path), "read-ahead")
    assert (level, UDEV_RULE in cure) == (Level.NOTE, True)
    (tmp_path / "sys/class/bdi").mkdir(parents=True)
    assert finding(machine(tmp_path, is_admin=True), "read-ahead")[0] is Level.OK
