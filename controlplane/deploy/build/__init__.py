"""Run what a recipe says: as a user of its own, within limits and a time budget, every line told as it is printed."""
