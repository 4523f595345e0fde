"""What the control plane that hands a request on says of its client, and how the holder knows that it was one of the fleet.

One field, `VOUCHED`: a code, whether a call was counted by its rate limit already, and the client's
address. The code is HMAC-SHA256 of these, the request's id and the node's, by the key that only
nodes of this database have. A client that makes it up, or changes a part, has said nothing; what
it sends is never handed on. Who can read it on its way can send it again, but has the token
beside it then. The key is in no answer, and the field in no log.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from controlplane.web.peers import NODE_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.web.problems import Headers
    from controlplane.web.request import Head

VOUCHED = b"x-corral-client"
LABEL = b"corral/v1/client of"
"""What is made with the nodes' key elsewhere begins with other words."""
COUNTED, UNCOUNTED = b"counted", b"uncounted"


@frozen
class Client:
    """Who sent a request to the node that handed it on. `is_counted`: it has taken its turn of the rate limit there."""

    address: str
    is_counted: bool


@define(eq=False)
class Vouching:
    """Writes and reads the field; `key` gives what nodes know each other by, None where there is no database."""

    key: Callable[[], str | None] = field(repr=False)

    def fields(self, client: Client, by: bytes, request_id: bytes) -> Headers:
        """What goes with a request; nothing without a key.

        Args:
            client: Who sent it.
            by: Our own node, as in `NODE_HEADER`.
            request_id: The request's, under which it is handed on.
        """
        key = self.key()
        if key is None:
            return ()
        said = (COUNTED if client.is_counted else UNCOUNTED) + b" " + client.address.encode("latin-1", "replace")
        return ((VOUCHED, _code(key, by, request_id, said) + b" " + said),)

    def read(self, head: Head) -> Client | None:
        """What another node says of the client; None: nobody says anything, or none that shows the key."""
        value = head.fields.get(VOUCHED)
        key = None if value is None else self.key()
        if value is None or key is None:
            return None
        code, _, said = value.partition(b" ")
        own = _code(key, head.fields.get(NODE_HEADER, b""), head.fields.get(b"x-request-id", b""), said)
        if not hmac.compare_digest(code, own):
            return None
        counted, _, address = said.partition(b" ")
        return Client(address.decode("latin-1"), counted == COUNTED)


def _code(key: str, by: bytes, request_id: bytes, said: bytes) -> bytes:
    """No part but the last can hold a line's end, so no two requests are written alike."""
    return hmac.digest(key.encode(), b"\n".join((LABEL, by, request_id, said)), "sha256").hex().encode()
