"""What is to be done with each entry, and where copies go: the rules of cp(1). Pure."""

import enum
import stat
from dataclasses import dataclass

from blobfs.copying.entries import Entry
from blobfs.copying.places import Place
from blobfs.errors import AlreadyExists, InvalidArgument, IsADirectory, NotADirectory

# Of a directory until its download ends: nobody else enters it. Who makes one so does not make it sticky.
UNFINISHED_MODE = stat.S_IRWXU | stat.S_ISVTX

_REPLACED = (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR)


class Step(enum.Enum):
    """What is to be done with an entry."""

    COPY = "copy"
    SKIP = "skip"
    RESTORE_TIMES = "restore times"  # a directory is the same, but what is made in it changes its times
    COMPARE = "compare"  # the checksums decide: they cost reading the file


@dataclass(frozen=True, slots=True)
class Rules:
    """What is copied when something stands there already."""

    no_clobber: bool = False
    update: bool = False  # not what has the same size and time of change
    checksum: bool = False  # not what has the same bytes


def step_for(source: Entry, target: Entry | None, rules: Rules) -> Step:
    """Return what to do. Raises AlreadyExists when a directory meets something else, InvalidArgument."""
    if source.problem:
        raise InvalidArgument(source.problem)
    if target is None:
        return Step.COPY
    if source.is_directory != target.is_directory:
        what = "a directory" if target.is_directory else "no directory"
        raise AlreadyExists(f"what stands there is {what}")
    if source.kind != target.kind and target.kind not in _REPLACED:
        raise AlreadyExists("what stands there is a device, fifo or socket")
    if rules.no_clobber and not _is_unfinished(target):
        return Step.SKIP
    if source.is_directory:
        return Step.RESTORE_TIMES if _is_same_directory(source, target) else Step.COPY
    if not (rules.update or rules.checksum):
        return Step.COPY
    if source.kind != target.kind or source.size_bytes != target.size_bytes:
        return Step.COPY
    here, there = source.attributes, target.attributes
    if rules.checksum and (here.is_regular or here.is_symlink):
        return Step.COMPARE
    same = here.rdev == there.rdev if rules.checksum else here.mtime_ns == there.mtime_ns
    return Step.SKIP if same else Step.COPY


def _is_unfinished(target: Entry) -> bool:
    """Tell a directory here that an interrupted download made, and left to the next one."""
    mode = target.attributes.mode & (0o777 | stat.S_ISVTX)  # others may come from the directory it is in
    return target.blob is None and target.is_directory and mode == UNFINISHED_MODE


def _is_same_directory(source: Entry, target: Entry) -> bool:
    """A mere prefix has no attributes of its own yet."""
    here, there = source.attributes, target.attributes
    same = (here.mode, here.uid, here.gid, here.mtime_ns) == (
        there.mode,
        there.uid,
        there.gid,
        there.mtime_ns,
    )
    return same and (source.blob is None) != (target.blob is None)


def root_for(source: Place, entry: Entry, target: Place, found: Entry | None, *, is_one_of_many: bool) -> str:
    """Return the path of the copy of a source in the target's container or file system, as cp(1) decides.

    `entry` is what stands at the source and `found` what stands at the target. Raises NotADirectory
    if several sources, or a directory, are to go where there is none, and for a link that is named
    as a directory; IsADirectory.
    """
    if entry.attributes.is_symlink and source.means_directory:
        raise NotADirectory(
            f"{source.text} is a link, and those in a container are not followed: name its target"
        )
    is_there = found is not None and found.is_directory
    if (
        found is not None
        and not is_there
        and (entry.is_directory or is_one_of_many or target.means_directory)
    ):
        raise NotADirectory(f"{target.text} is no directory")
    if is_one_of_many and not (is_there or target.means_directory):
        raise NotADirectory(f"{target.text} does not exist; several sources go into a directory: end it in /")
    if source.is_stream and (is_there or target.means_directory):
        raise IsADirectory(f"{target.text} names a directory: give the name that standard input is to have")
    goes_into = is_there or (target.means_directory and not entry.is_directory) or is_one_of_many
    base = target.path.rstrip("/") or ("/" if target.path else "")
    if not goes_into or source.means_contents:
        return base
    if not base:
        return source.entry
    return f"{base.rstrip('/')}/{source.entry}"


def refuse_inside_itself(source: Place, root: str, target: Place) -> None:
    """Raise InvalidArgument for a copy of a place to itself, or of a directory into itself."""
    if source.container is None or source.container != target.container:
        return
    if f"{root}/".startswith(f"{source.path}/") or not source.path:
        raise InvalidArgument(f"{source.text} cannot be copied into itself, as {root}")
