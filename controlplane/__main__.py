"""`python -m controlplane`: the server itself.

Reads the environment and `.env`, then serves until it is told to stop. With
`--replace` it takes over from the one that runs on the same CORRAL_HOME. Exit
status: 0 stopped, 70 an internal error, 78 a configuration that cannot be used.
"""

from __future__ import annotations

import logging
import resource
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.config import Config

EX_SOFTWARE = 70
EX_CONFIG = 78
REPLACE = "--replace"


def main() -> int:
    """Run the control plane; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while modules load ends it without a traceback
    from controlplane.spawn.linux import PR_SET_DUMPABLE, prctl  # noqa: PLC0415

    prctl(PR_SET_DUMPABLE, 0)  # first of all: no child of the same user may read our memory or environment
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # nor may a core dump keep it, whatever the host does with those
    from controlplane.config import ConfigError  # noqa: PLC0415
    from controlplane.environment import settings  # noqa: PLC0415

    try:
        config = settings()
    except ConfigError as error:
        return _refuse(error.problems)
    return _run(config, replace=REPLACE in sys.argv[1:])


def _run(config: Config, *, replace: bool) -> int:
    import trio  # noqa: PLC0415

    from controlplane.app import run  # noqa: PLC0415
    from controlplane.config import ConfigError  # noqa: PLC0415
    from controlplane.embedded import EmbeddedFailed  # noqa: PLC0415
    from controlplane.errors import StorageUnavailable  # noqa: PLC0415
    from controlplane.home import HomeUnusable  # noqa: PLC0415
    from controlplane.logs import open_log  # noqa: PLC0415
    from controlplane.secretbox import SecretUnreadable  # noqa: PLC0415
    from controlplane.store.migrate import SchemaRefused  # noqa: PLC0415

    open_log(config.log_level, config.log_dir, form=config.log_format)
    _raise_descriptor_limit()
    problems: list[str] = []
    status = 0
    try:
        trio.run(partial(run, config, replace=replace), strict_exception_groups=True)
    except* ConfigError as group:
        problems += [problem for error in _leaves(group) for problem in getattr(error, "problems", [str(error)])]
    except* (HomeUnusable, EmbeddedFailed, SchemaRefused, SecretUnreadable, StorageUnavailable) as group:
        problems += [str(error) for error in _leaves(group)]
    except* Exception:
        logging.getLogger("corral").critical("the control plane failed", exc_info=True)
        status = EX_SOFTWARE
    return status or (_refuse(problems) if problems else 0)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


def _raise_descriptor_limit() -> None:
    """Each instance and each client costs descriptors; the soft limit is a default from another age."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _refuse(problems: list[str]) -> int:
    print("corral cannot start:", file=sys.stderr)  # noqa: T201
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)  # noqa: T201
    return EX_CONFIG


if __name__ == "__main__":
    sys.exit(main())
