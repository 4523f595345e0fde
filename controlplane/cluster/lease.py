"""When a node may take what another one held, and until when it may run what it holds itself; pure.

Three clocks are involved. The database's says whether a lease stands. Each node's own counts how long its lease has
stood, and until when its processes may live; it is read before a renewal is sent, so the fence always falls before the
lease ends, whatever the way to the database takes.
"""

from __future__ import annotations
