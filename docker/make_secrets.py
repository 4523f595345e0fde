"""Makes what is missing of the stack's secrets, each in a file that only those may read who need it.

Compose runs it at each start, before everything else. What was made once stays; files that follow from others are
written anew, so that they say the same. Standard library only.

    admin-token, secret-key, database-url, redis-url   the control plane's alone
    postgres-password                                  for group 10002 as well, which Postgres is given
    redis.conf                                         for group 10003 as well, which Redis is given
"""

import os
import secrets
import sys
from pathlib import Path

CANNOT = 78
"""Exit status, as the control plane's own: a configuration that cannot be used."""
ENTER_ONLY = 0o711
OWN_FILE, GROUP_FILE = 0o600, 0o640
POSTGRES_GROUP, REDIS_GROUP = 10002, 10003
SECRET_BYTES = 32
DATABASE_URL = "postgresql://mcp_user:{password}@postgres:5432/mcp_saas\n"
REDIS_URL = "redis://:{password}@redis:6379/0\n"
REDIS_CONF = """\
requirepass {password}
# Redis holds only what can be made anew: nothing is written to a disk, and what is used least gives way.
save ""
appendonly no
dir /data
maxmemory 128mb
maxmemory-policy allkeys-lru
"""


def main(folder: Path) -> int:
    """Make what is missing in `folder`; returns the exit status."""
    os.umask(0o077)
    try:
        folder.chmod(ENTER_ONLY)
        made = make(folder)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}. The folder must be user {os.geteuid()}'s.", file=sys.stderr)
        return CANNOT
    print(f"made {', '.join(made)}" if made else "nothing was missing")
    return 0


def make(folder: Path) -> list[str]:
    """Return the names of the secrets that are new."""
    new = []
    for name, group in (
        ("secret-key", None),
        ("admin-token", None),
        ("postgres-password", POSTGRES_GROUP),
        ("redis-password", None),
    ):
        if not (folder / name).exists():
            write(folder / name, secrets.token_urlsafe(SECRET_BYTES) + "\n", group)
            new.append(name)
    postgres, redis = (read(folder / f"{name}-password") for name in ("postgres", "redis"))
    write(folder / "database-url", DATABASE_URL.format(password=postgres))
    write(folder / "redis-url", REDIS_URL.format(password=redis))
    write(folder / "redis.conf", REDIS_CONF.format(password=redis), REDIS_GROUP)
    return new


def read(path: Path) -> str:
    """What a secret's file holds."""
    return path.read_text().strip()


def write(path: Path, text: str, group: int | None = None) -> None:
    """Replace a file, whole or not at all; nobody may read it for a moment who may not in the end."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    with open(scratch, "x") as file:
        if group is not None:
            os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), OWN_FILE if group is None else GROUP_FILE)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
