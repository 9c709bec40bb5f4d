"""Names and handles in, values and failures out: POSIX on top of blobs, free of kernel and cloud."""
