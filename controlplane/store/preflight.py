"""Whether this program could use a database, asked while another control plane still serves with it; changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio_asyncio

from controlplane.errors import StorageUnavailable
from controlplane.store.failures import NoConnection
from controlplane.store.migrate import load_schema, plan, present_version, refuse_old_server
from controlplane.store.pool import connect
from controlplane.store.postgres import unwrapped
from controlplane.store.queries_secrets import check_keys

if TYPE_CHECKING:
    from controlplane.secretbox import SecretBox

COMMAND_S = 5.0
"""For each question; they read a row or two."""


async def check(url: str, secret_box: SecretBox) -> int:
    """Look at a database as a start would.

    Returns:
        How many migrations a start would apply.

    Raises:
        ConfigError: the URL cannot be used.
        StorageUnavailable: no database answers.
        SchemaRefused: it is of a newer version, or not Corral's.
        SecretUnreadable: something in it is encrypted with a key that is not at hand.
    """
    with unwrapped():
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(lambda *_: None)
            steps: int = await trio_asyncio.aio_as_trio(_check, loop=loop)(url, secret_box)
    return steps


async def _check(url: str, secret_box: SecretBox) -> int:
    try:
        connection = await connect(url, command_timeout_s=COMMAND_S)
    except NoConnection as error:
        raise StorageUnavailable("the database does not answer: check DATABASE_URL") from error
    try:
        return await _look(connection, secret_box)
    finally:
        connection.terminate()


async def _look(connection: Any, secret_box: SecretBox) -> int:
    refuse_old_server(connection)
    schema = load_schema()
    present = await present_version(connection)
    steps = plan(present, schema)
    if present == schema.version:
        await check_keys(connection, secret_box)
    return len(steps)
