"""What copies one entry, in whichever direction."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from blobfs.copying.entries import Entry, Work


class EntryCopier(ABC):
    """Copies entries in one of the directions."""

    @abstractmethod
    def copy(self, work: Work) -> None:
        """Copy it. Blocks. Raises Failure or OSError, and then nothing has changed."""

    def parts(self, work: Work) -> Sequence[range]:  # noqa: ARG002
        """Return the stretches of a file that `stage` can move, none if it goes as one. Blocks.

        Raises Failure.
        """
        return ()

    def stage(self, work: Work, spans: Sequence[range]) -> None:
        """Move these stretches, which `copy`, wherever that is done, then need not. Blocks.

        Raises Failure, OSError.
        """
        raise NotImplementedError

    def is_late(self, entry: Entry) -> bool:  # noqa: ARG002
        """Tell what has to wait until everything else is copied: nothing where directories are blobs."""
        return False

    def prepare(self, work: Work) -> None:  # noqa: B027
        """Make one of those fit for what is copied before it. Raises as `copy`."""

    def copy_late(self, work: Work) -> None:
        """Copy one of those, the last found first."""
        self.copy(work)
