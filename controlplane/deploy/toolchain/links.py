"""Links and small scripts, put in place in one step."""

from __future__ import annotations

from pathlib import Path


def link(at: Path, target: Path) -> None:
    """Make `at` a link to `target`, whatever it was before."""
    if at.is_symlink() and at.readlink() == target:
        return
    staged = at.with_name(f".{at.name}.new")
    staged.unlink(missing_ok=True)
    staged.symlink_to(target)
    staged.replace(at)


def write_script(at: Path, text: str) -> None:
    """Make `at` a program with this text, whatever it was before."""
    staged = at.with_name(f".{at.name}.new")
    staged.write_text(text)
    staged.chmod(0o755)
    staged.replace(at)
