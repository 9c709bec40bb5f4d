"""Numbers and choices of ours that are handed down, each once, with its unit and its reason.

What only one module needs stands at its top, and the service's own limits in `blobfs.blocks`. Only the
command line, the composition roots and what speaks of the whole import this module, and what looks for a
credential; everything else is handed the numbers it needs.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blobfs.blocks import KiB, MiB


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """One policy for every request; nothing above or below it retries."""

    total_seconds: float = 60.0  # a job notices a dead endpoint in a minute, a failover fits in it
    first_wait_seconds: float = 0.2
    longest_wait_seconds: float = 10.0
    connect_seconds: float = 5.0
    read_seconds: float = 30.0  # until a reply begins: the service itself takes as long for a block list
    stall_seconds: float = 10.0  # a body that brings under 64 KiB in that time is asked for anew


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """How many requests may be under way: `reads` sizes one pool, `writes` each of four; see `Transfers`."""

    reads: int = 24
    writes: int = 16
    waiting_files: int = 1000  # closed with --writeback and on their way; each has a journal open
    connections: int = 96  # the most requests at once; if all 120 threads had one to send, 24 would wait


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """How much is fetched at a time."""

    fragment_bytes: int = 64 * KiB  # random 4 KiB readers: amplification 16, one round trip
    block_bytes: int = 8 * MiB  # sequential readers; the grid that blobfs itself writes
    portion_bytes: int = 1 * MiB  # of a block, for who has just begun to read, or while memory is short
    whole_bytes: int = 256 * KiB  # smaller files are fetched whole, which is no slower
    sequential_bytes: int = 128 * KiB  # in order from the start: the kernel's first request of a copy
    mid_file_sequential_bytes: int = 3 * MiB  # from elsewhere: who jumps by the MiB wants no whole blocks
    tolerance_bytes: int = 1 * MiB  # how far out of order the kernel's own read-ahead may arrive
    most_tolerance_bytes: int = 4 * MiB  # once a reader is under way: threads may be delayed
    ahead_blocks: int = 20  # 160 MiB in flight: a connection often brings 60 MB/s, the line 20 times that
    waiting_pieces: int = 6  # for the disk cache; more would take memory from readers
    damage_attempts: int = 3  # to get bytes that match their checksum, before the reader gets EIO
    ahead_files: int = 16  # for a copy: a small one takes it 1 ms, and the service often 10
    ahead_bytes: int = 4 * MiB  # files up to that come whole then: as much as a reply with an MD5 may have
    open_bytes: int = 64 * KiB  # fetched by open() itself, which must ask the service anyway


@dataclass(frozen=True, slots=True)
class CredentialSettings:
    """Where the options say that the credential is; only paths and names are kept here, never a secret.

    At most one can be used.
    """

    connection_string_file: Path | None = None
    account_key_file: Path | None = None
    sas_file: Path | None = None
    auth: str = ""  # "", "entra" or "anonymous"


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """One container, and how it is reached."""

    account: str
    container: str
    credential: CredentialSettings = CredentialSettings()
    endpoint: str = ""  # empty: https://ACCOUNT.blob.core.windows.net, or the local emulator
    ca_file: Path | None = None
    retry: RetrySettings = field(default_factory=RetrySettings)
    transfers: TransferSettings = field(default_factory=TransferSettings)


@dataclass(frozen=True, slots=True)
class ContentSettings:
    """How bytes are read and written, and what that may take."""

    memory_bytes: int = 512 * MiB
    block_size_bytes: int = 8 * MiB  # above 4 MiB the service uses its high-throughput path
    file_md5: bool = True  # costs as much processor time again as the checksums of the blocks
    verify: str = "blocks"  # off, blocks or all: which of the bytes read are compared with checksums
    cache_dir: Path | None = None  # None: nothing is kept on disk
    cache_bytes: int = 10 * 1024 * MiB
    reads: ReadSettings = field(default_factory=ReadSettings)


@dataclass(frozen=True, slots=True)
class MountSettings:
    """One mount, completely described."""

    service: ServiceSettings
    mountpoint: Path
    content: ContentSettings = ContentSettings()
    prefix: str = ""
    read_only: bool = False
    create_container: bool = False
    attr_timeout_seconds: float = 1.0
    close_to_open: bool = True  # NFS has the name, and the option: nfs(5), nocto
    uid: int | None = None  # None: of the mounting user
    gid: int | None = None
    umask: int = 0o022
    exclusive_create: bool = False
    allow_other: bool = False
    kernel_options: tuple[str, ...] = ()  # as libfuse spells them: nosuid, noexec, …
    spool_dir: Path | None = None
    writeback: bool = False
    metrics: tuple[str, int] | Path | None = None  # a loopback address and port, or a UNIX socket
    binding: str = "auto"  # auto, libfuse3 or libfuse2
    log_file: Path | None = None
    log_level: str = "info"
    foreground: bool = False

    def by_name(self) -> dict[str, Any]:
        """Return every setting, those of the service and of the content beside the others."""
        values = asdict(self)
        return {**values.pop("service"), **values.pop("content"), **values}


@dataclass(frozen=True, slots=True)
class CopySettings:
    """What is asked for of a copy or comparison without a mount."""

    recursive: bool = False
    no_clobber: bool = False
    update: bool = False
    checksum: bool = False
    deletes: bool = False
    dry_run: bool = False
    preserves: bool = True
    symlinks: str = "keep"  # keep, follow or skip
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    jobs: int = 16  # entries at once: a small file is one round trip, and a service answers many
    limit_bytes_per_second: int = 0  # 0: as fast as it goes
    tier: str = ""
    content_type: str = ""
    reads_all: bool = False  # compare bytes where checksums would do


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Copies or comparisons with one container, completely described, for whichever process takes part."""

    service: ServiceSettings
    content: ContentSettings
    copy: CopySettings
