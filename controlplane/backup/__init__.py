"""`corral backup` and `corral restore`: everything that cannot be made again, in one archive."""
