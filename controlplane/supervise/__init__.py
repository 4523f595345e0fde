"""One nursery per instance: prepare, start, serve, restart, stop."""
