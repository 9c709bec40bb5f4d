"""The command line: arguments to `MountSettings`, a process in the background, exit codes."""
