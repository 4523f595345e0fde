"""The way out of sandboxes: a process of its own that answers on sockets made inside their network namespaces."""
