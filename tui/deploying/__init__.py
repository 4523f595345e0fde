"""Deploying from the dashboard: what was typed, what is made of it, and how far it has come. Pure, but for reading a folder."""
