"""What Corral remembers: Postgres behind the `Store` protocol, and the journal that writes history in batches."""
