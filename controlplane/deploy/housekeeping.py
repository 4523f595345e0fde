"""Keep the disk within bounds: installs that nobody uses, and archives that no revision comes from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from controlplane.deploy.installs.collecting import prune
from controlplane.errors import CorralError

if TYPE_CHECKING:
    from controlplane.deploy.inbox import Inbox
    from controlplane.deploy.installs.store import InstallStore

FIRST_S = 60.0
"""After a start: instances have said by then which installs they use."""
EVERY_S = 900.0
log = logging.getLogger("corral.deploy")


async def run(installs: InstallStore, inbox: Inbox) -> None:
    """Service loop. Whatever fails is logged and tried again the next time."""
    await trio.sleep(FIRST_S)
    while True:
        try:
            freed = await inbox.collect() + (await prune(installs)).freed_bytes
            if freed:
                log.info("removed %d MiB of installs and archives that nobody uses", freed // 2**20)
        except (CorralError, OSError) as error:
            log.warning("what nobody uses cannot be collected: %s", error)
        await trio.sleep(EVERY_S)
