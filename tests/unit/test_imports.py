"""Imports point down. The order of the modules stands here once, as data."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import blobfs
import blobfs.azure
import blobfs.cli

PACKAGE = Path(__file__).parents[2] / "blobfs"

# From the ground up. A module may import from lines below its own; those on one line are strangers.
LAYERS = """
    blobfs errors blocks proc waits format content spool tree filesystem kernel doctor
    store
    kernel.threads kernel.versions kernel.device kernel.notifier kernel.read_ahead doctor.findings
    settings callers address_space control_groups own_directory counters open_files prices copying
    copying.interruption
    format.dialects format.headers format.names format.xattrs
    tree.inodes tree.copy_detector
    content.layout content.memory content.piece_file
    format.attributes
    tree.directory_changes
    azure azure.addresses azure.messages azure.credentials azure.outage azure.retry azure.throttle azure.tls
    azure.access azure.batch azure.exchange azure.listing azure.pace azure.sources azure.failures
    azure.replies azure.transport
    azure.client
    azure.inspection
    azure.store
    doctor.machine doctor.network doctor.service
    azure.assembly
    tree.cache transfers spool.records
    spool.image spool.files
    spool.journal spool.leftovers
    spool.directory
    content.checksums content.disk_cache content.extents content.whole_md5 tree.walks
    tree.namespace
    content.fetcher
    content.runs
    content.range_cache
    content.first_bytes content.warming
    content.whole_check
    content.streams
    content.reader content.staging
    content.draft
    content.writer
    content.thread_writers
    spool.recovery
    filesystem.own_writes filesystem.kernel_pages filesystem.lost_changes filesystem.unanswered_writes
    filesystem.files
    filesystem.file_table
    filesystem.orphans
    filesystem.volume
    filesystem.upload_queue kernel.stats kernel.kernel_attributes
    filesystem.commits filesystem.deletions
    filesystem.directory_commits
    filesystem.moves filesystem.removal
    filesystem.directory_renames
    filesystem.renames
    filesystem.asked_ahead
    filesystem.early_opens filesystem.next_files
    filesystem.directories filesystem.opening
    filesystem.handles
    filesystem.filesystem
    kernel.operations
    kernel.calls
    kernel.binding
    copying.entries copying.meter copying.places copying.report copying.selection copying.part_file
    copying.catalogue copying.entry_copier copying.plan copying.trees copying.units copying.workers
    copying.comparing copying.downloading copying.relocating copying.uploading
    copying.carrying copying.checker
    copying.copier
    assembly
    recover
    copy_session
    copies
    cluster_worker
    cluster
    status metrics doctor.examination
    mount
    cli cli.machine cli.control cli.output
    cli.messages
    cli.bar cli.config_file cli.daemon cli.logs cli.values
    cli.progress
    cli.mountpoint
    cli.options cli.umount cli.sync
    cli.commands
    cli.config cli.doctor cli.mount cli.recover cli.looks cli.warm
    cli.copying
    cli.cp
    cli.verify
    cli.report
    cli.status
    cli.helper
    cli.main
    __main__
"""
RANKS = {module: rank for rank, line in enumerate(LAYERS.strip().splitlines()) for module in line.split()}

# What only these modules may import: our own packages, other people's, and parts of the standard library.
# The FUSE bindings are loaded by name, for which importlib is the mark.
RESERVED = {
    "blobfs.settings": {
        "assembly",
        "copies",
        "copy_session",
        "mount",
        "recover",
        "cluster_worker",
        *("azure.assembly", "azure.sources"),  # where a credential is
        "cli.copying",
        "cli.cp",
        "cli.logs",
        "cli.mount",
        "cli.options",
        "cli.recover",
        "cli.verify",
        "doctor.examination",
        "status",
    },
    "blobfs.azure": {
        *("assembly", "copies", "copy_session", "mount", "status"),
        "cli.recover",  # what names may be: its list needs no service
        *("doctor.examination", "doctor.network", "doctor.service"),
        *(module for module in RANKS if module.startswith("azure")),
    },
    "blobfs.kernel.binding": {"mount"},
    "blobfs.mount": {"cli.mount"},
    "azure": {"azure.credentials"},
    "requests": {"azure.transport"},
    "urllib3": {"azure.tls", "azure.transport"},
    "tenacity": {"azure.retry"},
    "cachetools": {
        "content.checksums",
        *("filesystem.early_opens", "filesystem.file_table", "filesystem.kernel_pages"),
        *("filesystem.next_files", "filesystem.orphans", "filesystem.own_writes"),
        "kernel.kernel_attributes",
        *("tree.cache", "tree.copy_detector", "tree.inodes", "tree.namespace", "tree.walks"),
    },
    "xxhash": {"blocks", "spool.records", "tree.inodes"},
    "distributed": {"cluster", "cluster_worker"},
    "pathspec": {"copying.selection"},
    "click": {module for module in RANKS if module.startswith("cli.")},
    "tomli": {"cli.config_file"},
    "tomllib": {"cli.config_file"},
    "prometheus_client": {"metrics"},
    "rich": {"cli.bar", "cli.report", "cli.warm"},
    "concurrent": {"cli.sync", "cli.warm", "cluster", "doctor.network", "kernel.notifier", "transfers"},
    "ctypes": {
        "address_space",
        "azure.tls",
        "content.memory",
        "kernel.binding",
        "kernel.calls",
        "kernel.stats",
        "kernel.threads",
        "kernel.versions",
    },
    "http": {"azure.exchange", "azure.transport", "metrics"},
    "importlib": {"cli.cp", "kernel.binding"},
    "socket": {"azure.exchange", "azure.pace", "azure.transport", "doctor.network", "metrics"},
    "ssl": {"azure.tls", "azure.transport", "cli.values"},
    "subprocess": {"cli.umount"},
}


def module_of(path: Path) -> str:
    """Return a module's name below `blobfs`; a package's is that of its directory."""
    relative = path.relative_to(PACKAGE).with_suffix("")
    parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
    return ".".join(parts) or "blobfs"


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(module: str) -> Iterator[str]:
    """Yield the whole names of the modules that a module imports, wherever it does."""
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = "." * node.level + (node.module or "")  # a relative one belongs nowhere below
            names = [f"{parent}.{alias.name}" for alias in node.names]
            yield from (name if ours(name) in MODULES else parent for name in names)


def ours(name: str) -> str:
    return name.removeprefix("blobfs.")


def is_within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def map_rows() -> Iterator[list[str]]:
    """Yield what each row of the map in `blobfs` names, the packages' own maps included."""
    own_maps = {"azure": blobfs.azure.__doc__, "cli": blobfs.cli.__doc__}
    for row in re.findall(r"^``.*(?:\n .*)*", blobfs.__doc__ or "", re.MULTILINE):
        head, *names = re.findall(r"``(\w+)``", row)
        names += re.findall(r"^    (\w+)", own_maps.get(head) or "", re.MULTILINE)
        is_package = (PACKAGE / head).is_dir()
        yield [head, *(f"{head}.{name}" if is_package else name for name in names)]


def test_every_module_has_its_place() -> None:
    assert set(MODULES) == set(RANKS)


def test_map_names_every_module_once() -> None:
    named = [module for row in map_rows() for module in row]
    assert sorted(named) == sorted(set(MODULES) - {"blobfs", "__main__"})


def test_imports_point_down_the_map() -> None:
    rows = {module: number for number, row in enumerate(map_rows()) for module in row}
    upwards = [
        (module, name)
        for module in rows
        for name in map(ours, imports(module))
        if rows.get(name, len(rows)) < rows[module]
    ]
    assert upwards == []


@pytest.mark.parametrize("module", RANKS)
def test_imports_point_down(module: str) -> None:
    above = [
        name for name in imports(module) if is_within(name, "blobfs") and RANKS[ours(name)] >= RANKS[module]
    ]
    assert above == []


@pytest.mark.parametrize("module", RANKS)
def test_reserved_imports_stay_where_they_belong(module: str) -> None:
    strays = [
        name
        for name in imports(module)
        for package, allowed in RESERVED.items()
        if is_within(name, package) and module not in allowed
    ]
    assert strays == []


@pytest.mark.parametrize("module", RANKS)
def test_everything_from_outside_is_known(module: str) -> None:
    tops = {name.partition(".")[0] for name in imports(module)}
    assert tops - sys.stdlib_module_names - {"blobfs"} <= set(RESERVED)
