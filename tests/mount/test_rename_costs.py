"""What renames of directories ask of the service, by the responder's counters."""

import os
import subprocess
from collections.abc import Mapping

from mounts import Mounts
from responder.control import Responder
from responder.faults import Rule
from responder.recipes import Recipe

FILES = 200
MOST_BATCHES = 20


def requests_of_mv(service: Responder, container: str) -> Mapping[str, int]:
    """Move a directory of files, and return what was asked for that, by kind."""
    service.make_blobs(container, Recipe("old/f{index}", FILES, size_bytes=1))
    with Mounts(service, container, "libfuse3") as mounts:
        root = mounts().path
        service.reset_counters()
        subprocess.run(["mv", root / "old", root / "new"], check=True)
        requests = service.counters.requests
        assert os.listdir(root) == ["new"]
        assert len(os.listdir(root / "new")) == FILES
    return requests


def test_directory_is_moved_by_one_copy_for_each_file_and_a_few_batches(service: Responder, box: str) -> None:
    requests = requests_of_mv(service, box)
    assert requests["PUT copy"] == FILES
    assert requests["POST batch"] <= MOST_BATCHES
    assert "DELETE blob" not in requests


def test_directory_is_moved_where_the_service_has_no_batches(service: Responder, box: str) -> None:
    service.order(Rule(kind="POST batch", status=501))
    requests = requests_of_mv(service, box)
    assert requests["DELETE blob"] == FILES
    assert requests["POST batch"] <= MOST_BATCHES
