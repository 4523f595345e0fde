"""Fixtures of the end-to-end tests: real control planes, driven from outside."""

from tests.e2e.plane import plane, planes

__all__ = ["plane", "planes"]
