"""Which version of a file the kernel's page cache holds: what an `open` may keep of it."""

import threading

import cachetools

from blobfs.store import BlobInfo

KNOWN_PAGES = 100_000  # files whose pages the kernel may still hold


class KernelPages:
    """Versions by the name of the file's blob. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the map
        self._etags: cachetools.LRUCache[str, str] = cachetools.LRUCache(KNOWN_PAGES)

    def note_version(self, name: str, etag: str) -> bool:
        """Note which version the kernel has pages of from now on; tell whether it had those before."""
        with self._lock:
            were_valid = self._etags.get(name) == etag
            self._etags[name] = etag
            return were_valid

    def may_be_of(self, blob: BlobInfo) -> bool:
        """Tell whether the kernel may hold pages of this version."""
        with self._lock:
            return self._etags.get(blob.name) == blob.etag

    def distrust(self, name: str) -> None:
        """Have the next `open` drop the kernel's pages of a name: some may be damaged, or never committed."""
        with self._lock:
            self._etags.pop(name, None)

    def rename(self, old: BlobInfo, new: BlobInfo) -> None:
        """Keep the pages of a version under the new one, which has the same bytes."""
        with self._lock:
            if self._etags.get(old.name) == old.etag:
                del self._etags[old.name]
                self._etags[new.name] = new.etag
