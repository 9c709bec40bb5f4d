"""blobfs mounts an Azure Blob container as a POSIX directory.

From the top layer down; imports only ever point downwards. ``cli`` and ``azure`` have maps of their own:

===================  =================================================================================
``cli``              the command line: options, configuration, daemon, messages, exit codes
``mount``            the composition root: makes every object once and gives it its settings. ``recover``:
                     another, after a crash; ``copies``: another, without a mount; ``copy_session``: what
                     one copy has at hand; ``cluster``: a copy shared by Dask workers; ``cluster_worker``:
                     what those do
``doctor``           what may keep a mount from working. ``examination``: all checks in order;
                     ``machine``, ``network``, ``service``: what is checked; ``findings``: what is found
``status``           what a mount says of itself; ``metrics``: the same for Prometheus
``assembly``         the parts that mounts, copies and recoveries share
``copying``          copies without a mount. ``places``: arguments; ``entries``: what is to be copied;
                     ``trees``: list entries, here or there; ``selection``: chooses them by globs;
                     ``plan``: applies cp's rules; ``catalogue``: knows the destination; ``copier``:
                     copies end to end; ``workers``: threads; ``carrying``: copies one entry;
                     ``entry_copier``: in one direction, ``uploading``, ``downloading`` or ``relocating``;
                     ``units``: give verified bytes in order; ``part_file``: an incomplete file;
                     ``checker``: compares trees; ``comparing``: compares one file; ``meter``: counts what
                     moves; ``report``: says what became of it; ``interruption``: ends it early
``kernel``           libfuse. ``binding``: loads it, and alone knows it; ``calls``: callbacks from C;
                     ``operations``: callbacks in Python, which decide nothing; ``kernel_attributes``:
                     those that the kernel was given recently; ``notifier``: makes the kernel forget them;
                     ``stats``: fill struct stat; ``threads``: libfuse's, known to Python; ``versions``: of
                     libfuse; ``device``: whether the kernel has gone; ``read_ahead``: the kernel's
``filesystem``       POSIX on blobs. ``filesystem``: what is done by path; ``handles``: open files;
                     ``opening``: finds the version to open; ``directories``: open directories;
                     ``asked_ahead``: answers asked for early, for ``next_files`` of a copy and
                     ``early_opens``; ``renames``, ``removal``: of names; ``directory_renames``: of trees;
                     ``moves``: of single blobs; ``orphans``: open files without a name; ``commits``: of
                     files; ``directory_commits``: of directories' attributes; ``deletions``: of blobs;
                     ``upload_queue``: closed files to be sent later; ``files``: one object for all handles
                     of a name; ``file_table``: finds it; ``unanswered_writes``: which took effect;
                     ``own_writes``: names that this mount has written; ``kernel_pages``: versions in the
                     kernel's page cache; ``lost_changes``: to be reported later; ``volume``: shared state
``spool``            what is not committed, on disk. ``directory``: holds the journals; ``journal``: notes
                     one file's changes; ``files``: journals on disk; ``records``: their format;
                     ``leftovers``: journals after a crash; ``image``: the file that one describes;
                     ``recovery``: makes blobs of them
``content``          bytes. ``draft``: edits; ``extents``: where each byte is; ``staging``: sends blocks;
                     ``writer``: commits; ``thread_writers``: one for each thread; ``whole_md5``: of a
                     file written in order; ``reader``: chooses ranges; ``first_bytes``: come with the
                     answer what a blob is; ``warming``: fills caches on command; ``streams``: how each
                     handle reads; ``range_cache``: bytes in memory, by version; ``runs``: what it holds;
                     ``memory``: the bounded pool; ``fetcher``: gets verified bytes, from ``disk_cache`` or
                     service; ``piece_file``: a file of that cache; ``layout``: cuts a version into units;
                     ``checksums``: knows layouts; ``whole_check``: the MD5 of a file read in order
``tree``             names. ``namespace``: what is under a path; ``cache``: names known for a while;
                     ``walks``: list ahead of programs; ``copy_detector``: tells threads that copy;
                     ``inodes``: numbers and times; ``directory_changes``: attributes not sent yet
``transfers``        threads for requests and background work; a timer
``azure``            the only package that knows HTTP and the Blob service
``callers``          who waits, and whether he was killed or has gone; ``waits``: that can be given up
``proc``             what the kernel tells of this process and of threads; ``control_groups``: memory
                     limits; ``address_space``: how little threads reserve; ``open_files``: how many there
                     may be; ``own_directory``: private directories on this machine
``format``           how files are stored as blobs. ``names``: of paths; ``attributes``: as metadata;
                     ``dialects``: metadata of other tools; ``xattrs``: extended attributes; ``headers``:
                     of new blobs
``store``            the port: what blobfs asks of a store; ``errors``: every failure and its errno
``settings``         numbers that are handed down, with unit and reason; a module's own are at its top
``counters``         numbers that grow, without a lock; ``prices``: what requests would cost
``blocks``           the service's limits, and ids that are checksums
===================  =================================================================================

A read goes kernel, ``binding``, ``operations``, ``filesystem`` (handle to file), ``files``, ``reader``
(which unit or fragments), ``range_cache`` (there, or fetched once for all who wait), ``fetcher`` (on disk?
damaged?), ``store.read_range``, pinned to the ETag; and back, with one copy into the kernel's buffer.

A write goes the same way down to ``files``, ``writer`` and ``draft``, which fills a buffer; a full one is
hashed and staged in the background. ``flush`` and ``fsync`` wait for all blocks and commit them with
If-Match; the new version comes back as a value and ``filesystem`` tells the ``namespace``.

What always holds:

1. A reader joins a fetch of its bytes that is under way, and never waits for queued work: it takes it over.
2. A task waits for no other that is still queued, but a commit for its blocks and MD5, which wait for none.
3. Cached bytes are keyed by name and ETag; a reader meets `Changed`, never a mixture.
4. A committed blob is complete or as it was: nobody sees part of a commit.
5. Every commit says which version it replaces. A file that lost such a race stays failed.
6. A lock that all share is never held across a request. Those of one thing are: a file's, which serialises
   that file, a version's while its block list is asked for, a walk's, that of a handle's whole MD5.
   Only a rename waits for a second file's.
7. Order: a file's lock, then shared ones. Few of these nest: Orphans, FileTable, OwnWrites; DirectoryCommits,
   DirectoryChanges; NextFiles, then what it looks into (TreeCache, InodeNumbers, KernelPages, RangeCache).
   The buffer pool's comes last: whoever drops a buffer takes it.
"""

__version__ = "0.1.0"
