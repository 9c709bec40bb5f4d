"""How libfuse is told to mount: its versions do not all know the same options."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from blobfs.callers import Callers
from blobfs.errors import CannotRun
from blobfs.kernel import binding
from blobfs.kernel.versions import libfuse_versions


@pytest.mark.parametrize("kind", ["libfuse3", "libfuse2"])
def test_a_damaged_libfuse_is_named_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    damaged = tmp_path / "libfuse.so"
    damaged.touch()
    monkeypatch.setattr("ctypes.util.find_library", lambda _: str(damaged))
    with pytest.raises(CannotRun, match=f"libfuse cannot be loaded: {damaged}: .*too short. Have an admin"):
        binding.load(kind)
    assert libfuse_versions() == {}


@pytest.mark.parametrize(
    ("version", "are_fixed"),
    [((3, 3), False), ((3, 10), False), ((3, 12), True), ((3, 14), True), ((4, 0), True)],
)
def test_only_a_libfuse_that_knows_the_option_is_told_how_many_threads_to_have(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], are_fixed: bool
) -> None:
    told: dict[str, Any] = {}

    class Libfuse:
        keeps_threads: bool

        def __init__(self, _operations: Any, _mountpoint: str, **options: Any) -> None:
            told.update(options)

    monkeypatch.setattr(binding, "libfuse3_version", lambda: version)
    monkeypatch.setattr(binding, "_libfuse3_class", lambda *_: Libfuse)
    operations: Any = None
    binding.serve(
        ("libfuse3", ModuleType("library")),
        operations,
        "/mnt",
        {},
        Callers(lambda: 0, lambda: False),
        timeout_seconds=1.0,
        kernel_threads=8,
    )
    assert told["max_idle_threads"] == "8"
    assert told.get("max_threads") == ("8" if are_fixed else None)
    # Otherwise they come and go, and what is kept of each would add up.
    assert Libfuse.keeps_threads is are_fixed
