"""blobfs mounts an Azure Blob container as a POSIX directory."""

__version__ = "0.1.0"
