"""How much memory a mount takes if it is not told."""

import os
from pathlib import Path

from blobfs.blocks import MiB
from blobfs.control_groups import memory_limits_bytes

SHARE = 4  # a quarter: the job beside the mount wants the most of what they both may have
LEAST_BYTES = 32 * MiB  # room for four blocks


def default_memory_bytes(most_bytes: int, root: Path = Path("/")) -> int:
    """Return `most_bytes`, or less where the machine or its control groups give little."""
    physical_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit_bytes = min((physical_bytes, *memory_limits_bytes(root)))
    share_bytes = limit_bytes // SHARE // MiB * MiB
    return max(LEAST_BYTES, min(most_bytes, share_bytes))
