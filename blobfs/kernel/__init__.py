"""The kernel's side: libfuse's calls, numbers and structures. Nothing here decides anything."""
