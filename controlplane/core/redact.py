"""Keep an instance's environment values out of everything that is stored or shown.

Pure. Values shorter than `MIN_LENGTH` are left alone: replacing every "1" or
"true" would ruin the log and hide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

MIN_LENGTH = 8


def redactor(env: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that replaces each secret value by `[redacted:NAME]`; longer values win over their parts."""
    names = {value: name for name, value in env.items() if len(value) >= MIN_LENGTH}
    if not names:
        return lambda text: text
    pattern = re.compile("|".join(re.escape(value) for value in sorted(names, key=len, reverse=True)))
    return lambda text: pattern.sub(lambda found: f"[redacted:{names[found[0]]}]", text)
