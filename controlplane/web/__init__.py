"""HTTP: the front door, the guards that both its lanes call, and one module per resource."""
