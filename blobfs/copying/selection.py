"""Which entries of a tree are copied, by globs as in ``.gitignore`` files. Pure."""

from collections.abc import Sequence

from pathspec import GitIgnoreSpec

from blobfs.errors import InvalidArgument


class Selection:
    """Everything, or what `include` names, without what `exclude` names and what is below that.

    A pattern without a slash is compared with the last component, at any depth; one with a slash
    with the whole path below the source. ``*`` stops at a slash, ``**`` does not, and a slash at the
    end means directories only (gitignore(5)).
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        """Raise InvalidArgument for a pattern that is none."""
        self._include = _compiled(include)
        self._exclude = _compiled(exclude)
        self._takes_all = not include

    def takes(self, path: str, *, is_directory: bool) -> bool:
        """Tell whether an entry is to be copied. The root, whose path is empty, always is."""
        if not path:
            return True
        subject = f"{path}/" if is_directory else path
        if self._exclude and self._exclude.match_file(subject):
            return False
        return self._takes_all or self._include.match_file(subject)

    def enters(self, path: str) -> bool:
        """Tell whether anything below a directory can be taken."""
        return not (path and self._exclude and self._exclude.match_file(f"{path}/"))


def _compiled(patterns: Sequence[str]) -> GitIgnoreSpec:
    for pattern in patterns:
        if not pattern.strip() or pattern.startswith(("!", "#")):
            raise InvalidArgument(f"{pattern!r} is no pattern: write something like '*.tmp' or 'cache/**'")
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise InvalidArgument(f"{', '.join(patterns)}: no pattern: {error}") from error
