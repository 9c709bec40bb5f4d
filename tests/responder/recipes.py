"""Blobs without an upload: as many and as large as wanted, at no cost in memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from blobfs.blocks import digest_of
from responder.account import Account, Blob
from responder.memory import CONTENTS, Content, KiB, Pattern

# Neighbours differ; the contents repeat after so many blobs, so that few checksums are worked out.
_STRIDE_BYTES = 64 * KiB
_DIFFERENT = 1021
_HEADERS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Blobs to make. Equal recipes make equal bytes."""

    name: str = "blob"  # with {index}, and {directory}, which index * directories // count is
    count: int = 1
    directories: int = 1
    size_bytes: int = 0
    content: str = "random"  # or "zeros"
    block_bytes: int = 0  # committed in blocks of that size, with this project's ids; 0: put whole
    has_md5: bool = True  # working it out takes 2 s a GiB
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.content not in CONTENTS:
            raise ValueError(f"{self.content!r} is none of {CONTENTS}")


def make_blobs(account: Account, owner: str, container: str, recipe: Recipe) -> None:
    """Make the blobs in a container. Raises Refusal if it does not exist."""
    blobs = list(_blobs(account, recipe))  # which may take seconds, so nobody is locked out meanwhile
    with account.lock:
        account.container(owner, container).keep_all(blobs)


def _blobs(account: Account, recipe: Recipe) -> Iterator[Blob]:
    for index in range(recipe.count):
        directory = index * recipe.directories // recipe.count
        offset = index % _DIFFERENT * _STRIDE_BYTES
        pattern = Pattern(recipe.content, offset, recipe.size_bytes)
        blocks = tuple(_blocks(pattern, recipe.block_bytes)) if recipe.block_bytes else None
        yield Blob(
            name=recipe.name.format(index=index, directory=directory),
            **account.stamp(),
            content=Content(blocks or (pattern,)),
            block_ids=None if blocks is None else tuple(map(_block_id, blocks)),
            metadata=recipe.metadata,
            headers=_HEADERS,
            md5=_md5(recipe.content, pattern.offset, recipe.size_bytes) if recipe.has_md5 else "",
        )


def _blocks(pattern: Pattern, block_bytes: int) -> Iterator[Pattern]:
    for start in range(0, pattern.size_bytes, block_bytes):
        size_bytes = min(block_bytes, pattern.size_bytes - start)
        yield Pattern(pattern.content, pattern.offset + start, size_bytes)


def _block_id(block: Pattern) -> str:
    return _digest_id(block.content, block.offset, block.size_bytes)


@cache
def _digest_id(content: str, offset: int, size_bytes: int) -> str:
    return digest_of(b"".join(Pattern(content, offset, size_bytes).views(0, size_bytes))).block_id()


@cache
def _md5(content: str, offset: int, size_bytes: int) -> str:
    return Content((Pattern(content, offset, size_bytes),)).part().md5()
