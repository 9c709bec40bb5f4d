"""More readers of one file than the mount has threads."""

import subprocess
import uuid

from mounts import Mounts, on_both_bindings
from responder.control import Responder
from responder.faults import Rule
from responder.recipes import Recipe

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
