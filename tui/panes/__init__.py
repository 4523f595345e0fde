"""The tabs of an instance: one file each."""
