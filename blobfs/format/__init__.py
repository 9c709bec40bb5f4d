"""How files are stored as blobs: names and metadata keys, ours and those of other tools. Pure."""
