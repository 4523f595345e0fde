"""Sources: what an owner hands in or points at, made a folder of files that is safe to build."""
