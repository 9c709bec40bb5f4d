"""What the arguments of a copy name: paths here, or places in a container. Pure but for one question."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from blobfs.errors import InvalidArgument

STREAM = "-"  # standard input or output

_CERTAINLY_LOCAL = re.compile(r"/|~|\.{1,2}(/|\Z)")
_URL = re.compile(r"https?://", re.IGNORECASE)
_FORM = "Write https://HOST/CONTAINER or …/CONTAINER/PATH"
_HOST = re.compile(r"\A[^/]*//[^/]*")  # and the scheme: in both, case means nothing (RFC 3986, 6.2.2.1)


@dataclass(frozen=True, slots=True)
class Container:
    """Where a container is."""

    account: str
    name: str
    endpoint: str = ""  # empty: as options and the account say


@dataclass(frozen=True, slots=True)
class Place:
    """A path here, or below a container."""

    text: str  # as it was given
    path: str  # here, or in the container: without slashes at its ends, empty for all of it
    container: Container | None = None

    @property
    def is_stream(self) -> bool:
        """Whether this is standard input or output."""
        return self.container is None and self.path == STREAM

    @property
    def means_directory(self) -> bool:
        """Whether it can only be one: it ends in a slash, or is a whole container."""
        return self.text.endswith(("/", "/.")) or (self.container is not None and not self.path)

    @property
    def means_contents(self) -> bool:
        """Whether what is in the directory is meant, and not the directory: it ends in ``/.``."""
        bare = self.text.rstrip("/")
        return bare in (".", "..") or bare.endswith(("/.", "/.."))

    @property
    def entry(self) -> str:
        """What a copy of it is called in a directory."""
        last = self.path.rstrip("/").rpartition("/")[2]
        return last or (self.container.name if self.container is not None else "")


def seen_from_anywhere(place: Place, directory: str) -> Place:
    """Return the same place, for processes whose working directory is not this one."""
    is_relative = place.container is None and not place.path.startswith("/")
    return replace(place, path=f"{directory.rstrip('/')}/{place.path}") if is_relative else place


def place_of(text: str, is_here: Callable[[str], bool]) -> Place:
    """Return what an argument names; ``is_here(entry)`` tells whether the working directory has an entry.

    A container is ``ACCOUNT/CONTAINER[/PATH]``, unless the working directory has something called ACCOUNT,
    or its address, ``https://ACCOUNT.blob.core.windows.net/CONTAINER[/PATH]``; all else is a path here.
    Raises InvalidArgument for an address that is none, and for nothing.
    """
    if not text:
        raise InvalidArgument("an empty argument names no place. Give a path, or ACCOUNT/CONTAINER")
    if _URL.match(text):
        return _place_at(text)
    first, slash, rest = text.partition("/")
    if text == STREAM or not slash or not rest.strip("/") or _CERTAINLY_LOCAL.match(text) or is_here(first):
        return Place(text, text)
    return _remote(text, first, rest)


def _place_at(url: str) -> Place:
    try:
        parts = urlsplit(url)
    except ValueError:  # its message may show a password
        raise InvalidArgument(f"what begins with https:// is no address. {_FORM}") from None
    if "?" in url or "#" in url or "@" in parts.netloc:
        shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        raise InvalidArgument(f"{shown}: a SAS or password belongs in a file: --sas-file")
    path = unquote(parts.path.lstrip("/"))
    if ".blob." in parts.netloc:
        account, endpoint = parts.netloc.partition(".")[0], f"{parts.scheme}://{parts.netloc}"
    else:  # emulators and private clouds
        account, _, path = path.partition("/")
        endpoint = f"{parts.scheme}://{parts.netloc}/{account}"
    if not account or not path.strip("/"):
        raise InvalidArgument(f"{url}: names no container. {_FORM}")
    return _remote(url, account, path, _spelled(endpoint))


def _remote(text: str, account: str, rest: str, endpoint: str = "") -> Place:
    container, _, path = rest.lstrip("/").partition("/")
    path = path.removesuffix(".") if path == "." or path.endswith("/.") else path
    return Place(text, path.strip("/"), Container(account, container, endpoint))


def _spelled(endpoint: str) -> str:
    """Return an endpoint as it is spelled the same by all who mean it."""
    return _HOST.sub(lambda found: found.group().lower(), endpoint).rstrip("/")


def at_endpoints(places: Sequence[Place], endpoint: str) -> list[Place]:
    """Return the places with the endpoints of their containers, as far as those are told.

    A container that is named without a URL is at `endpoint`, if that is not empty, and otherwise where
    the URLs among the places have its account.
    """
    containers = [place.container for place in places if place.container is not None]
    told = {container.account: container.endpoint for container in containers if container.endpoint}

    def located(container: Container) -> Container:
        found = container.endpoint or _spelled(endpoint) or told.get(container.account, "")
        return replace(container, endpoint=found)

    return [
        place if place.container is None else replace(place, container=located(place.container))
        for place in places
    ]


def require_direction(sources: list[Place], target: Place) -> None:
    """Raise InvalidArgument unless the places make one copy that has something to do with a container."""
    remote = {source.container is not None for source in sources}
    if len(remote) > 1:
        raise InvalidArgument("some sources are here and some in a container: copy them one after the other")
    if remote == {False} and target.container is None:
        texts = " and ".join(repr(place.text) for place in [*sources, target])
        raise InvalidArgument(
            f"{texts} are all paths on this machine, where cp(1) copies. A container is "
            "ACCOUNT/CONTAINER/PATH if nothing here is called ACCOUNT, and otherwise "
            "https://ACCOUNT.blob.core.windows.net/CONTAINER/PATH"
        )
    if any(source.is_stream for source in sources) and len(sources) > 1:
        raise InvalidArgument("standard input (-) can only be copied alone")
    containers = [place.container for place in (*sources, target) if place.container is not None]
    if len({(container.account, container.endpoint) for container in containers}) > 1:
        accounts = {container.account for container in containers}
        names = accounts if len(accounts) > 1 else {container.endpoint for container in containers}
        raise InvalidArgument(
            f"{' and '.join(sorted(names))} are two accounts, and one credential is for one: "
            "copy through a local directory. A local path that looks like an account begins with ./"
        )
    if target.container is None and len(set(containers)) > 1:
        raise InvalidArgument("the sources are in several containers: copy them one after the other")
