"""Several control planes on one database: who they are, who holds which instance, and for how long."""
