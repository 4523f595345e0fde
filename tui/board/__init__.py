"""The board: what the dashboard knows of the fleet, and how each event changes it. Pure."""
