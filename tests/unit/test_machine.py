from pathlib import Path

import pytest

from blobfs.blocks import MiB
from blobfs.cli.machine import LEAST_BYTES, default_memory_bytes

MOST_BYTES = 512 * MiB


def machine(root: Path, membership: str, limits: dict[str, str]) -> Path:
    """Make the files in which the kernel tells of control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, limit in limits.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    return root


@pytest.mark.parametrize(
    ("membership", "limits"),
    [
        ("0::/job/step\n", {"job/step/memory.max": str(400 * MiB)}),
        ("0::/job/step\n", {"job/step/memory.max": "max", "job/memory.max": str(400 * MiB)}),
        ("0::/of/the/host\n", {"memory.max": str(400 * MiB)}),
        ("9:cpu:/a\n4:memory:/slurm\n", {"memory/slurm/memory.limit_in_bytes": str(400 * MiB)}),
        ("5:cpu,memory:/a/b\n", {"memory/a/memory.limit_in_bytes": str(400 * MiB)}),
        (
            "4:memory:/a\n0::/\n",
            {"memory/a/memory.limit_in_bytes": str(400 * MiB), "memory.max": str(2000 * MiB)},
        ),
    ],
)
def test_memory_is_a_quarter_of_what_the_control_groups_allow(
    tmp_path: Path, membership: str, limits: dict[str, str]
) -> None:
    assert default_memory_bytes(MOST_BYTES, machine(tmp_path, membership, limits)) == 100 * MiB


@pytest.mark.parametrize(
    ("membership", "limits"),
    [
        ("0::/\n", {}),
        ("0::/job\n", {"job/memory.max": "max"}),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}),
        ("9:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "1"}),
        ("", {}),
    ],
)
def test_memory_is_the_usual_where_nothing_limits_it(
    tmp_path: Path, membership: str, limits: dict[str, str]
) -> None:
    assert default_memory_bytes(MOST_BYTES, machine(tmp_path, membership, limits)) == MOST_BYTES


def test_memory_is_never_too_little_for_a_few_blocks(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", {"memory.max": str(20 * MiB)})
    assert default_memory_bytes(MOST_BYTES, root) == LEAST_BYTES


def test_memory_is_the_usual_on_a_system_without_control_groups(tmp_path: Path) -> None:
    assert default_memory_bytes(MOST_BYTES, tmp_path) == MOST_BYTES
