"""How a source in some language becomes a command. Imports nothing of Corral's."""
