"""Pure decisions: bytes, times and numbers in, values out."""
