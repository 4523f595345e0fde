"""The owner's own build command. Pure."""

from __future__ import annotations

from runtimes.recipe import CannotPlan, Env, Step

MAX_COMMAND_LENGTH = 4096
"""Characters; what is longer belongs into a script of the source."""


def own_build(command: str, programs: str | None = None, env: Env = ()) -> Step:
    """Run it with `sh` in the tree. It takes the place of the language's own build step, after dependencies are there.

    Args:
        command: As the owner wrote it.
        programs: A folder of the tree whose programs come first in PATH.
        env: For the tools that it may call.

    Raises:
        CannotPlan: it is empty or too long.
    """
    if not command.strip() or len(command) > MAX_COMMAND_LENGTH or "\0" in command:
        raise CannotPlan(f"a build command has 1 to {MAX_COMMAND_LENGTH} characters", field="build_command")
    before = f'export PATH="$PWD/{programs}:$PATH"\n' if programs else ""
    return Step(name="run the build command", argv=("sh", "-c", before + command), env=env)
