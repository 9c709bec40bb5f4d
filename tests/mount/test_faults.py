"""What programs see when the service fails: every fault, on a real mount against the responder."""

import errno
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from mounts import Mount, Mounts, blobfs, on_both_bindings
from relay import Relay
from responder.control import Responder
from responder.faults import Fault, Rule
from unix import refused
from waiting import wait_until


@pytest.fixture
def mounts(service: Responder, box: str, binding: str) -> Iterator[Mounts]:
    with Mounts(service, box, binding) as mounts:
        yield mounts
        service.order()


MiB = 1 << 20
SIZE_BYTES = 200_000
OLD = bytes(range(256)) * 800
NEW = os.urandom(SIZE_BYTES)


Action = Callable[[], object]


def of_replies(**fields: object) -> Rule:
    """Return a rule for what blobfs asks for once it is mounted."""
    return Rule(pattern="^(GET|HEAD|PUT|DELETE) /", **fields)  # type: ignore[arg-type]


def write(directory: Path) -> Action:
    descriptor = os.open(directory / "new", os.O_CREAT | os.O_WRONLY)
    return lambda: closing(descriptor, lambda: os.write(descriptor, NEW))


def closing(descriptor: int, action: Action) -> None:
    """Act, and have close(2) say what it says also when that has failed."""
    try:
        action()
    finally:
        os.close(descriptor)


def read(directory: Path) -> Action:
    def action() -> None:
        assert (directory / "old").read_bytes() == OLD

    return action


def rename(directory: Path) -> Action:
    return lambda: (directory / "moved").rename(directory / "target")


BEFORE = {"old": OLD, "moved": b"moved", "gone": b"gone", "mode": b"mode"}


def fill(service: Responder, box: str, directory: str) -> None:
    """Make the files that operations meet, behind the mount's back."""
    with service.client() as client:
        for name, body in BEFORE.items():
            client.get_blob_client(box, f"{directory}/{name}").upload_blob(body)


def blobs(service: Responder, box: str, directory: str) -> dict[str, bytes]:
    """Return the files of a directory as another client sees them."""
    with service.client() as client, client.get_container_client(box) as container:
        names = list(container.list_blob_names(name_starts_with=f"{directory}/"))
        return {name.rpartition("/")[2]: container.download_blob(name).readall() for name in names}


def failing(action: Action) -> tuple[int, float]:
    """Return the errno that an action ends with, and the seconds that it took."""
    began_at = time.monotonic()
    with pytest.raises(OSError) as raised:  # noqa: PT011 (its errno is the result)
        action()
    return raised.value.errno or 0, time.monotonic() - began_at


def answers(mount: Mount) -> bool:
    """Tell whether the mount has found out that the service is back."""
    try:
        return bool(os.listdir(mount.path))
    except OSError:
        return False


# The service away altogether


def refusal_to_unmount(mount: Mount) -> str:
    ended = blobfs("umount", mount.path)
    assert ended.returncode == 1
    return ended.stderr


AWAY: dict[str, tuple[Callable[[Responder, Relay], None], int]] = {
    "silent": (lambda service, _: service.freeze(), errno.ETIMEDOUT),
    "reset": (lambda service, _: service.order(of_replies(fault=Fault.RESET)), errno.EIO),
    "refused": (lambda _, relay: relay.refuse(), errno.EIO),
    "swallowed": (lambda _, relay: relay.swallow(), errno.ETIMEDOUT),
}


@pytest.mark.parametrize("away", AWAY)
def test_outage_costs_its_time_once_and_loses_nothing(service: Responder, box: str, away: str) -> None:
    go_away, expected = AWAY[away]
    with Relay(service) as relay, Mounts(relay, box, "libfuse3") as mounts:
        mount = mounts("--attr-timeout", "0", "--timeout", "2")
        fill(service, box, "d")
        write_new = write(mount.path / "d")
        go_away(service, relay)
        try:
            first = failing(lambda: (mount.path / "d/old").stat())
            others = [failing(rename(mount.path / "d")) for _ in range(20)]
            written = failing(write_new)
            refused = refusal_to_unmount(mount)
        finally:
            service.thaw()
            service.order()
            relay.restore()
        assert {first[0], written[0], *(number for number, _ in others)} == {expected}
        # A probe may take a whole time-out; all others cost nothing.
        assert sum(seconds for _, seconds in others) < 20 * first[1] / 2
        assert "/new: " in refused
        wait_until(lambda: answers(mount))
        mounts.unmount(mount)
        assert blobs(service, box, "d")["new"] == NEW
        log = mount.log.read_text()
        assert log.count("until the service answers again") == 1
        assert log.count(": the service answers again") == 1
        mounts.tolerate_log("the service (does not answer|answers)|not committed yet|committed after all")


def test_stores_that_are_lost_when_their_map_goes_are_named_by_sync(
    service: Responder, box: str, mounts: Mounts
) -> None:
    mounts.expect_log("ERROR .*/file: what was stored through a memory map is lost")
    mounts.tolerate_log("the service (does not answer|answers|is busy)")
    mount = mounts("--timeout", "2")
    path = mount.path / "file"
    with service.client() as client:
        client.get_blob_client(box, "file").upload_blob(bytes(12 * MiB))
    descriptor = os.open(path, os.O_RDWR)
    mapped = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    mapped[5 * MiB : 5 * MiB + 3] = b"new"
    service.order(Rule(status=503))
    mapped.close()
    service.order()
    wait_until(lambda: answers(mount))
    ended = blobfs("sync", mount.path)
    assert ended.returncode == 1
    assert "/file: what was stored through a memory map is lost: " in ended.stderr
    path.write_bytes(NEW)
    assert blobfs("sync", mount.path).returncode == 0


# Processes that are killed


STUCK = {
    "old": ("cat", Rule(pattern="^GET /.*/d/old", fault=Fault.STALL, at_byte=100)),
    "mode": ("cat", Rule(pattern="^GET /.*/d/mode", fault=Fault.HOLD)),
    "moved": ("stat", Rule(kind="LIST", fault=Fault.HOLD, count=1)),
    "gone": ("cat", Rule(pattern="^GET /.*/d/gone", status=503, retry_after_seconds=50)),
    "": ("ls", Rule(kind="LIST", fault=Fault.HOLD, count=1)),
}  # of the program's own request, for blobfs asks for others ahead


@on_both_bindings
def test_killed_process_goes_though_the_service_does_not_answer(
    service: Responder, box: str, mounts: Mounts
) -> None:
    mount = mounts("--attr-timeout", "0")
    mounts.tolerate_log("the service (is busy|does not answer|answers again)")
    fill(service, box, "d")
    for name, (program, rule) in STUCK.items():
        print(time.time(), name)
        service.order(rule)
        process = subprocess.Popen([program, mount.path / "d" / name], stdout=subprocess.DEVNULL)
        wait_until(lambda: service.hits[0] > 0)
        process.send_signal(signal.SIGTERM if program == "stat" else signal.SIGKILL)
        assert process.wait(timeout=20) < 0  # they would wait for 50 seconds and more
        assert (mount.path / "d/moved").read_bytes() == BEFORE["moved"]
        service.order()


@on_both_bindings
@pytest.mark.parametrize(
    "rule", [of_replies(fault=Fault.HOLD), of_replies(status=503, retry_after_seconds=50)]
)
def test_umount_does_not_wait_for_reads_that_nobody_wants_any_more(
    service: Responder, box: str, mounts: Mounts, rule: Rule
) -> None:
    mount = mounts("--timeout", "600")  # far longer than a command may take
    mounts.tolerate_log("the service (is busy|does not answer|answers again)")
    with service.client() as client:
        client.get_blob_client(box, "large").upload_blob(bytes(64 * MiB))
    with open(mount.path / "large", "rb", buffering=0) as file:
        file.read(MiB)
        service.order(rule)
        reader = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.DEVNULL)
        wait_until(lambda: service.hits[0] > 1)
        reader.kill()
        reader.wait(timeout=20)
    mounts.unmount(mount)


def test_reader_that_gets_a_mere_signal_goes_on(service: Responder, box: str, mounts: Mounts) -> None:
    mount = mounts("--attr-timeout", "0")
    fill(service, box, "d")
    service.order(Rule(kind="LIST", latency_seconds=1, count=1))
    script = (
        "import signal, sys, os; alarms = []; signal.signal(signal.SIGALRM, lambda *_: alarms.append(1)); "
        "signal.siginterrupt(signal.SIGALRM, True); signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05); "
        "file = os.open(sys.argv[1], os.O_RDONLY); size = len(os.read(file, 1 << 20)); "
        "signal.setitimer(signal.ITIMER_REAL, 0); print(bool(alarms), size)"
    )
    command = [sys.executable, "-c", script, str(mount.path / "d/old")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["True", str(len(OLD))]


# Credentials that end


def sas(box: str, key: str, hours: int, letters: str = "racwdl") -> str:
    return generate_container_sas(
        Responder.account,
        box,
        account_key=key,
        permission=ContainerSasPermissions.from_string(letters),
        expiry=datetime.now(timezone.utc) + timedelta(hours=hours),
    )


def put(file: Path, text: str) -> None:
    """Replace a secret at once, as a careful program does."""
    new = file.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(file)


BAD_SAS = {
    "expired": (Responder.key, -1, "expired on"),
    "of a rotated key": ("bm8gbG9uZ2Vy", 1, "does not accept the SAS from"),
}


@pytest.mark.parametrize("case", BAD_SAS)
def test_renewed_sas_file_heals_the_mount(
    service: Responder, box: str, mounts: Mounts, tmp_path: Path, case: str
) -> None:
    file = tmp_path / "sas"
    put(file, sas(box, Responder.key, 1))
    mount = mounts("--sas-file", file, "--attr-timeout", "0")
    fill(service, box, "d")
    key, hours, reason = BAD_SAS[case]
    with (mount.path / "open").open("wb", buffering=0) as opened:
        opened.write(NEW)
        write_new = write(mount.path)
        put(file, sas(box, key, hours))
        assert failing(lambda: os.fsync(opened.fileno()))[0] == errno.EACCES
        assert failing(read(mount.path / "d"))[0] == errno.EACCES
        assert failing(write_new)[0] == errno.EACCES
        put(file, sas(box, Responder.key, 1))
        os.fsync(opened.fileno())
    read(mount.path / "d")()
    mounts.expect_log(reason)
    # The kernel tells of a close(2) a moment later: by then the file may have been renewed, or not.
    mounts.tolerate_log("new was closed and is not committed yet, but kept|is committed after all")
    mounts.unmount(mount)
    with service.client() as client:
        assert client.get_blob_client(box, "new").download_blob().readall() == NEW
        assert client.get_blob_client(box, "open").download_blob().readall() == NEW


@on_both_bindings
def test_rename_by_a_sas_that_may_not_delete_changes_nothing_until_another_may(
    service: Responder, box: str, mounts: Mounts, tmp_path: Path
) -> None:
    file = tmp_path / "sas"
    put(file, sas(box, Responder.key, 1))
    root = mounts("--sas-file", file, "--attr-timeout", "0").path
    for name in ("source", "target"):
        (root / name).write_text(name)
    fill(service, box, "d")
    before = blobs(service, box, "d")
    put(file, sas(box, Responder.key, 1, "racwl"))
    for old, new in (("source", "target"), ("source", "new"), ("d", "e")):
        with refused(errno.EACCES):
            (root / old).rename(root / new)
    assert sorted(os.listdir(root)) == ["d", "source", "target"]
    assert (root / "target").read_text() == "target"
    assert (blobs(service, box, "d"), blobs(service, box, "e")) == (before, {})
    put(file, sas(box, Responder.key, 1))
    (root / "source").rename(root / "target")
    (root / "d").rename(root / "e")
    assert sorted(os.listdir(root)) == ["e", "target"]
    assert (root / "target").read_text() == "source"
    assert (blobs(service, box, "d"), blobs(service, box, "e")) == ({}, before)
