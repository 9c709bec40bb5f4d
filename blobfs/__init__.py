"""blobfs mounts an Azure Blob container as a POSIX directory.

The house, from the street down; imports only ever point downwards. ``cli`` and ``azure`` have maps of
their own:

===================  =================================================================================
``cli``              the command line: options, configuration, daemon, messages, exit codes
``mount``            the composition root: makes every object once and hands it its numbers; ``recover``,
                     another one, after a crash, and ``copies``, without a mount, which a ``cluster``
                     may share, with ``stations`` at its workers
``doctor``           what may keep a mount from working: an ``examination`` of the ``machine``, the
                     ``network`` and the ``service`` has ``findings``
``status``           what a mount says of itself; ``metrics``: the same for Prometheus
``assembly``         what mounts, copies and recoveries are all made of
``copying``          without a mount. ``places``: the arguments; ``trees`` of ``entries``, here or there, by a
                     ``selection``; ``plan``: cp's rules, against a ``catalogue`` of the destination;
                     ``copier``: end to end, by ``workers``; ``carrying`` one entry: by ``uploading``,
                     ``downloading`` or ``relocating``; ``units``: verified bytes in order;
                     ``part_file``: until all are there;
                     ``checker`` and ``comparing``: is it the same; ``meter``, ``report``: what moved;
                     ``interruption``: what ends it early
``kernel``           ``binding`` alone knows libfuse; ``calls``: from C and back; ``operations``, what they
                     call, decide nothing; ``told``: what the kernel believes for a moment; ``notifier``: has
                     it forget; ``stats``: struct stat; ``threads``: libfuse's, and Python; ``versions``:
                     which libfuse is here
``filesystem``       POSIX on blobs. ``filesystem``: names; ``handles``, ``directories``: what is open;
                     ``opening``: as of now; ``asked_ahead``: the ``next_files`` of a copy, and
                     ``early_opens``; ``renames``, ``directory_renames``: by ``moves`` of blobs;
                     ``removal``; ``orphans``: open, without a name; ``commits``, ``directory_commits`` and
                     ``deletions``: now or behind; ``waiting``: closed files that have time; ``files``: one
                     object for all handles of a name, found in the ``file_table``; ``doubt``: was a write
                     done; ``own_writes``: which were ours; ``kernel_pages``: of which version;
                     ``lost``: what was told done and is not; ``volume``: the state they share
``spool``            what is uncommitted, on disk. ``records`` in a ``journal``, ``files`` of a ``directory``;
                     after a crash ``leftovers``: ``image`` tells the bytes, ``recovery`` makes blobs of them
``content``          bytes. ``draft``: edits, over ``extents``; ``staging``: blocks on their way; ``writer``:
                     to a commit; ``whole_md5``; ``reader``: which ranges, how far ahead, for the ``streams``;
                     ``first_bytes``: with the news of a blob; ``warming``: before anybody reads;
                     ``range_cache``: ``runs`` by version; ``memory``: the bounded pool; ``fetcher``: from
                     ``disk_cache`` or service, verified by the ``checksums`` of a ``layout``;
                     ``whole_check``: by those of a whole file; ``piece_file``: on disk
``tree``             names. ``namespace``: what stands under a path; ``cache``: believed for a while;
                     ``walks``: listed ahead; ``creators``: who makes names one after the other; ``inodes``:
                     numbers and times; ``directory_changes``: attributes that are not sent yet
``transfers``        the threads in which requests, and what can wait, go on behind a call; and a timer
``azure``            the only package that knows HTTP and the Blob service
``callers``          the process that waits, and whether it was killed; ``control_groups``: its memory;
                     ``open_files``: how many this process may have;
                     ``proc``: what the kernel tells of a thread;
                     ``waits``: that end early when nobody wants any more what is waited for
``own_directory``    on this machine, where others may not write, or not even read
``format``           how files are put down as blobs: ``names``, ``attributes``, ``dialects``, ``xattrs``;
                     ``headers``: what a blob says of its bytes
``store``            the port: what blobfs asks of a store; ``errors``: every failure and its errno
``settings``         numbers that are handed down, with unit and reason; a module's own stand at its top
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
