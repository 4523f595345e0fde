"""Processes: the spawner (a process of its own, standard library only) and the Trio side that talks to it."""
