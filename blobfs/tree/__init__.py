"""The names of a container: what is under each, and how long that is trusted."""
