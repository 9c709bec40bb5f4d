"""Which systems there are, each with the options that served it best."""

import shutil

from bench.copying import AzCopy, Blobxfer, CopySystem, Curl, RcloneCopy
from bench.mounting import Blobfs, BlobfsWriteBack, Blobfuse2, MountSystem, Rclone, Zeros

System = MountSystem | CopySystem

# As rclone and blobfuse2 do always: what is known of names and files is believed for minutes.
_ALONE = ("--no-close-to-open", "--attr-timeout", "300")
_RCLONE_UPLOADS = ("--azureblob-chunk-size", "8M", "--azureblob-upload-concurrency", "16")
_RCLONE_READS = ("--vfs-read-chunk-streams", "8", "--vfs-read-chunk-size", "8M")


def systems(large_bytes: int) -> list[System]:
    """Return those that are installed; the mount of zeros has one file of this size."""
    return [system for system in _all(large_bytes) if shutil.which(system.program)]


def _all(large_bytes: int) -> list[System]:
    return [
        *_blobfs(),
        Rclone("rclone", (*_RCLONE_READS, *_RCLONE_UPLOADS)),
        Rclone(
            "rclone-cached",
            ("--vfs-cache-mode", "full", "--vfs-write-back", "1ms", *_RCLONE_READS, *_RCLONE_UPLOADS),
        ),
        Blobfuse2("blobfuse2", ("--block-cache",)),
        Blobfuse2("blobfuse2-file-cache", ()),
        Zeros("zeros", ("libfuse3", f"large={large_bytes}")),
        RcloneCopy("rclone-copy", ("--transfers", "16", "--multi-thread-streams", "8", *_RCLONE_UPLOADS)),
        AzCopy("azcopy", ("--check-length=false",)),
        Blobxfer("blobxfer", ("--transfer-threads", "16")),
        Curl("curl"),
    ]


def _blobfs() -> list[System]:
    return [
        Blobfs("blobfs", ("--binding", "libfuse3")),
        Blobfs("blobfs-libfuse2", ("--binding", "libfuse2")),
        Blobfs("blobfs-unverified", ("--binding", "libfuse3", "--verify", "off")),
        BlobfsWriteBack("blobfs-writeback", ("--binding", "libfuse3", "--writeback")),
        BlobfsWriteBack("blobfs-alone", ("--binding", "libfuse3", "--writeback", *_ALONE)),
    ]
