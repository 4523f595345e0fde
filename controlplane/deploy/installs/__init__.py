"""What was built once and is used by many: a content-addressed store, and the trees that instances get from it."""
