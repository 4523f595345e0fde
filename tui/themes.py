"""Corral's own two themes; Textual's are there as well."""

from __future__ import annotations

from textual.theme import BUILTIN_THEMES, Theme

# `text-muted` is by nature what stands out from its ground, and a table's lines are painted without asking for one.

DARK = Theme(
    name="corral-dark",
    dark=True,
    primary="#5fa8d3",
    secondary="#b48ead",
    accent="#e0af68",
    foreground="#d8dee9",
    background="#14171c",
    surface="#1a1e25",
    panel="#232932",
    success="#8fbf7f",
    warning="#e0af68",
    error="#e06c75",
    variables={"text-muted": "#8f99a8"},
)
LIGHT = Theme(
    name="corral-light",
    dark=False,
    primary="#1f6f9f",
    secondary="#8a4f86",
    accent="#8f5a00",
    foreground="#22272e",
    background="#fbfaf7",
    surface="#f3f1ec",
    panel="#e6e3dc",
    success="#2f7d32",
    warning="#8f5a00",
    error="#b3261e",
    variables={"text-muted": "#5f6873"},
)
DEFAULT = DARK.name
NAMES = (DARK.name, LIGHT.name, *sorted(BUILTIN_THEMES))
"""What can be asked for; Corral's own first."""
