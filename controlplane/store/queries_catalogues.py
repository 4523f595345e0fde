"""What instances offer: their listings, written and read again (asyncio)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from controlplane.model import Listing, Section
from controlplane.store.rows import Row, uuid_of

if TYPE_CHECKING:
    from collections.abc import Sequence

UPSERT_LISTING = """
    INSERT INTO mcp_catalogues (instance_id, section, items, digest, seen_at)
    SELECT id, $2, $3, $4, $5 FROM mcp_instances WHERE id = $1 AND deleted_at IS NULL
    ON CONFLICT (instance_id, section) DO UPDATE
       SET items = excluded.items, digest = excluded.digest, seen_at = excluded.seen_at
     WHERE mcp_catalogues.digest <> excluded.digest
"""
"""Nothing is kept of an instance that was deleted meanwhile."""
SELECT_LISTINGS = """
    SELECT instance_id, section, items, digest, seen_at
      FROM (SELECT catalogue.*, sum(length(items)) OVER (ORDER BY length(items), instance_id, section) AS bytes
              FROM mcp_catalogues AS catalogue JOIN mcp_instances ON id = instance_id
             WHERE deleted_at IS NULL) AS catalogue
     WHERE bytes <= $1
"""
"""The smallest first, so that what does not fit is missing for as few instances as possible."""
SELECT_LISTINGS_OF = "SELECT instance_id, section, items, digest, seen_at FROM mcp_catalogues WHERE instance_id = $1"


async def listings(connection: Any, max_bytes: int) -> list[Listing]:
    """What all instances offer, as far as `max_bytes` reach."""
    return _listings_of(await connection.fetch(SELECT_LISTINGS, max_bytes))


async def listings_of(connection: Any, instance_id: UUID) -> list[Listing]:
    """What one instance offers."""
    return _listings_of(await connection.fetch(SELECT_LISTINGS_OF, instance_id))


def listing_row(listing: Listing) -> tuple[Any, ...]:
    """Parameters of `UPSERT_LISTING`."""
    return listing.instance_id, listing.section.value, listing.items, listing.digest, listing.seen_at


def _listings_of(rows: Sequence[Row]) -> list[Listing]:
    return [
        Listing(
            instance_id=uuid_of(row["instance_id"]),
            section=Section(row["section"]),
            items=row["items"],
            digest=row["digest"],
            seen_at=row["seen_at"],
        )
        for row in rows
    ]
