"""Standard output, and what becomes of it when it cannot be written."""

import io
import os
import sys
from typing import Any

NAME = "standard output"


class _Output(io.FileIO):
    """Says its name in an error, as files do that are opened by theirs, and takes everything after one.

    What is left in buffers would otherwise fail the interpreter on its way out.
    """

    def write(self, data: Any, /) -> int:
        """Write. Raises OSError that names it."""
        try:
            return super().write(data)
        except OSError as error:
            error.filename = NAME
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            raise


def name_output() -> None:
    """Have the errors of writing standard output name it, unless it is closed."""
    plain = sys.stdout
    if plain is not None:
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(plain.fileno(), "wb", closefd=False)),
            encoding=plain.encoding,
            errors="backslashreplace",  # names may be no text, and a command is not to fail for its last word
        )
