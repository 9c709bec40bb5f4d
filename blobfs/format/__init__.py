"""How files are put down as blobs: names and metadata keys, ours and other tools'. Pure."""
