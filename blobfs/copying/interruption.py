"""What ends a copy or a check before it is done."""

import threading

from blobfs.errors import Abandoned
from blobfs.waits import Waits


class Interruption(Waits):
    """Ends everything that waits or moves bytes, once it is asked to."""

    def __init__(self) -> None:
        self._is_set = threading.Event()

    @property
    def is_set(self) -> bool:
        """Whether everything is to end."""
        return self._is_set.is_set()

    def set(self) -> None:
        """Have everything end."""
        self._is_set.set()

    def check(self) -> None:
        """Raise Abandoned if everything is to end."""
        if self.is_set:
            raise Abandoned("interrupted")
