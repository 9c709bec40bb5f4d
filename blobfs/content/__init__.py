"""The bytes of files: read by range, written as blocks, in one bounded pool of memory."""
