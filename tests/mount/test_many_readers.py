"""More readers and writers at once than the mount has threads."""

import resource
import subprocess
import uuid
from pathlib import Path

from mounts import Mounts, on_both_bindings, shell
from responder.control import Responder
from responder.faults import Rule
from responder.recipes import Recipe
from waiting import wait_until

from blobfs.address_space import RESERVED_BYTES

MiB = 1 << 20
READERS = 24  # with so little memory, four threads serve the kernel


@on_both_bindings
def test_all_who_open_a_file_at_once_get_all_of_it(service: Responder, binding: str) -> None:
    container = uuid.uuid4().hex
    service.create_container(container)
    service.make_blobs(container, Recipe("file", size_bytes=24 * MiB, content="zeros", has_md5=False))
    with Mounts(service, container, binding) as mount:
        mounted = mount("--memory", "64MiB")
        service.order(Rule(latency_seconds=0.01))
        reading = ["sh", "-c", 'cat "$1" | wc --bytes', "sh", str(mounted.path / "file")]
        readers = [subprocess.Popen(reading, stdout=subprocess.PIPE) for _ in range(READERS)]
        sizes = [int(reader.communicate(timeout=60)[0]) for reader in readers]
    assert sizes == [24 * MiB] * READERS


@on_both_bindings
def test_a_limit_on_addresses_is_kept_with_all_threads_at_work(
    service: Responder, box: str, binding: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * (8 * MiB // 256))
    with Mounts(service, box, binding) as mount:
        mounted = mount("--memory", "64MiB", "--block-size", "256KiB")
        limit_bytes = 64 * MiB + RESERVED_BYTES
        resource.prlimit(mounted.pid, resource.RLIMIT_AS, (limit_bytes, limit_bytes))
        service.order(Rule(latency_seconds=0.02))
        (mounted.path / "d").mkdir()
        at_once = f"seq {READERS} | xargs -P {READERS} -I N"
        shell(mounted.path, f"{at_once} cp {tmp_path}/file d/N")
        shell(mounted.path, f"mv d e; {at_once} cmp {tmp_path}/file e/N; rm -r e")


@on_both_bindings
def test_one_thread_for_each_purpose_is_enough(
    service: Responder, box: str, binding: str, tmp_path: Path
) -> None:
    """A machine may give a mount that is there no more threads (ulimit -u, a job's pids.max)."""
    (tmp_path / "sitecustomize.py").write_text(
        "import re, threading\n"
        "start = threading.Thread.start\n"
        "def start_unless_another(thread):\n"
        "    if re.search('blobfs-.*_[1-9]', thread.name): raise RuntimeError('can\\'t start new thread')\n"
        "    start(thread)\n"
        "threading.Thread.start = start_unless_another\n"
    )
    (tmp_path / "file").write_bytes(bytes(range(256)) * (2 * MiB // 256))
    options = ("--memory", "64MiB", "--block-size", "256KiB", "--writeback", "--spool-dir", tmp_path / "s")
    with Mounts(service, box, binding) as mount, service.client() as client:
        mounted = mount(*options, PYTHONPATH=str(tmp_path))
        service.order(Rule(latency_seconds=0.005))
        (mounted.path / "d").mkdir()
        at_once = f"seq {READERS} | xargs -P {READERS} -I N"
        shell(mounted.path, f"{at_once} cp {tmp_path}/file d/N")
        shell(mounted.path, f"mv d e; {at_once} cmp {tmp_path}/file e/N; rm -r e; echo > left")
        container = client.get_container_client(box)
        wait_until(lambda: [blob.name for blob in container.list_blobs()] == ["left"])
