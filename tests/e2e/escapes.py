"""What an instance may try, and what must come of it at each level: the promises and their limits, in one table.

`OPEN` is what a level does not promise to refuse, and does not; where it comes to refuse it, the table and
`docs/explanation/security.md` have to say so. `HOST` is what the host decides. Else it is refused, with one of
the errnos.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import frozen

from controlplane.spawn.confinement import LEVELS

if TYPE_CHECKING:
    from tests.e2e.scene import Scene

CONTAINED = "_in_container"
USERS = ("root", "plain_user", f"root{CONTAINED}", f"plain_user{CONTAINED}")
"""Who runs the control plane, and whether in a container."""

Expected = frozenset[str]
OPEN: Expected = frozenset({"OPEN"})
HOST: Expected = frozenset({"HOST"})

DENIED = frozenset({"EACCES"})
NOT_ALLOWED = frozenset({"EPERM"})
HIDDEN = frozenset({"ENOENT"})
NO_SUCH_PROCESS = frozenset({"ESRCH"})
NOT_THERE = frozenset({"NOTHING"})
CANNOT_WRITE = frozenset({"EROFS", "ENOENT", "EACCES"})
OF_ANOTHER_NAMESPACE = frozenset({"EINVAL"})
NO_MODULES = frozenset({"EPERM", "ENOSYS"})
NO_SUCH_USER = frozenset({"EPERM", "EINVAL"})
"""In a user namespace there is no root to become."""
UNREACHABLE = frozenset({"ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "EHOSTUNREACH", "NOTHING"})
"""The gate takes no connection to such an address, or drops it before a byte has come back."""

Three = tuple[Expected, Expected, Expected]
"""At `process`, `confined` and `namespaced`."""

NEVER = (NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED)
CLOSED = (DENIED, DENIED, HIDDEN)
"""Files, and of processes what lies in /proc: by whose they are, by Landlock, and as nothing of them is there."""
CLOSED_FROM_CONFINED = (OPEN, DENIED, HIDDEN)
OFTEN_CLOSED = (HOST, DENIED, HIDDEN)
"""At `process`: where each instance has a /tmp of its own, it is in a user namespace of its own, and that closes it."""
CLOSED_AT_LAST = (OPEN, OPEN, HIDDEN)
UNTOUCHED = (NOT_ALLOWED, NOT_ALLOWED, NO_SUCH_PROCESS)
"""Other processes."""
UNTOUCHED_FROM_CONFINED = (OPEN, NOT_ALLOWED, NO_SUCH_PROCESS)
UNTOUCHED_AT_LAST = (OPEN, OPEN, NO_SUCH_PROCESS)
SEEN = (OPEN, OPEN, NOT_THERE)
REACHED = (OPEN, OPEN, UNREACHABLE)
LEFT_TO_THE_HOST = (HOST, HOST, UNREACHABLE)
READ_ONLY = (CANNOT_WRITE, CANNOT_WRITE, CANNOT_WRITE)


@frozen
class Attempt:
    """One thing to try.

    Args:
        what: For people; the test's name.
        tool: The function of `escapee.py`.
        arguments: Of the scene, what it takes.
        by_root: What comes of it where Corral runs as root, and each instance as a user of its own.
        by_plain_user: Where Corral and all its instances are one ordinary user; None: the same.
        in_container: Where Corral runs in a plain container, at most at `confined`; None: the same as outside.
    """

    what: str
    tool: str
    arguments: Callable[[Scene], dict[str, Any]]
    by_root: Three
    by_plain_user: Three | None = None
    in_container: Three | None = None

    def expected(self, level: str, user: str) -> Expected:
        """What is to come of it; `user` is one of `USERS`."""
        if user.endswith(CONTAINED) and self.in_container is not None:
            outcomes = self.in_container
        elif user.startswith("plain_user") and self.by_plain_user is not None:
            outcomes = self.by_plain_user
        else:
            outcomes = self.by_root
        return outcomes[LEVELS.index(level)]


Arguments = Callable[["Scene"], dict[str, Any]]


def _pid(of: str) -> Arguments:
    return lambda scene: {"pid": getattr(scene, of)}


def _at(folder: str, *below: str) -> Arguments:
    return lambda scene: {"path": str(getattr(scene, folder).joinpath(*below))}


def _proc(of: str, file: str) -> Arguments:
    return lambda scene: {"path": f"/proc/{getattr(scene, of)}/{file}"}


def _port(of: str, host: str = "127.0.0.1") -> Arguments:
    return lambda scene: {"host": host, "port": getattr(scene, of)}


def _socket(of: str, protocol: str) -> Arguments:
    return lambda scene: {"path": str(getattr(scene, of)), "protocol": protocol}


def _as_it_is(**arguments: Any) -> Arguments:
    return lambda _scene: arguments


def _new_in(folder: str) -> Arguments:
    return lambda scene: {"path": f"{folder}/{scene.word}"}


ANOTHER_INSTANCE = (
    Attempt("read its file", "read", _at("other_home", "diary"), CLOSED, CLOSED_FROM_CONFINED),
    Attempt("change its file", "overwrite", _at("other_home", "diary"), CLOSED, CLOSED_FROM_CONFINED),
    Attempt("write into its home", "write", _at("other_home", "new"), CLOSED, CLOSED_FROM_CONFINED),
    Attempt("list its home", "listing", _at("other_home"), CLOSED, CLOSED_FROM_CONFINED),
    Attempt("change its file's mode", "change_mode", _at("other_home", "diary"), CLOSED, CLOSED_AT_LAST),
    Attempt("read its environment", "read", _proc("other", "environ"), CLOSED, OFTEN_CLOSED),
    Attempt("read its memory", "memory", _pid("other"), CLOSED, OFTEN_CLOSED),
    Attempt("read its memory by a call", "read_memory_by_call", _pid("other"), NEVER, (HOST, *NEVER[1:])),
    Attempt("attach to it as a debugger", "attach", _pid("other"), NEVER, (HOST, *NEVER[1:])),
    Attempt("open what it has open", "look_into", _proc("other", "fd/0"), CLOSED, OFTEN_CLOSED),
    Attempt("signal it", "signal_it", _pid("other"), UNTOUCHED, UNTOUCHED_FROM_CONFINED),
    Attempt("change its limits", "limit_cores", _pid("other"), UNTOUCHED, UNTOUCHED_FROM_CONFINED),
    Attempt("take its time", "slow_down", _pid("other"), UNTOUCHED, UNTOUCHED_FROM_CONFINED),
    Attempt("bind it to a processor", "bind_to_processors", _pid("other"), UNTOUCHED, UNTOUCHED_AT_LAST),
    Attempt("enter its namespaces", "enter_namespace", _pid("other"), CLOSED, OFTEN_CLOSED),
    Attempt("see it in the list of processes", "see", _pid("other"), SEEN),
)

CONTROL_PLANE = (
    Attempt("read its secret key", "read", _at("plane_home", "secret-key"), CLOSED, CLOSED_FROM_CONFINED),
    Attempt("read its credentials", "read", _at("plane_home", "credentials"), CLOSED, CLOSED_FROM_CONFINED),
    Attempt("change its secret key", "overwrite", _at("plane_home", "secret-key"), CLOSED, CLOSED_FROM_CONFINED),
    Attempt("write into its home", "write", _at("plane_home", "new"), READ_ONLY, (OPEN, *READ_ONLY[1:])),
    Attempt(
        "change the mode of its secret key",
        "change_mode",
        _at("plane_home", "secret-key"),
        (NOT_ALLOWED, NOT_ALLOWED, HIDDEN),
        CLOSED_AT_LAST,
    ),
    Attempt("read its environment", "read", _proc("plane", "environ"), CLOSED),
    Attempt("read its map of memory", "read", _proc("plane", "maps"), CLOSED),
    Attempt("read its memory", "memory", _pid("plane"), CLOSED),
    Attempt("read its memory by a call", "read_memory_by_call", _pid("plane"), NEVER),
    Attempt("attach to it as a debugger", "attach", _pid("plane"), NEVER),
    Attempt("open what it has open", "look_into", _proc("plane", "fd/0"), CLOSED),
    Attempt("signal it", "signal_it", _pid("plane"), UNTOUCHED, UNTOUCHED_FROM_CONFINED),
    Attempt("change its limits", "limit_cores", _pid("plane"), UNTOUCHED, UNTOUCHED_FROM_CONFINED),
    Attempt("take its time", "slow_down", _pid("plane"), UNTOUCHED, UNTOUCHED_FROM_CONFINED),
    Attempt("bind it to a processor", "bind_to_processors", _pid("plane"), UNTOUCHED, UNTOUCHED_AT_LAST),
    Attempt("offer it to the out-of-memory killer", "offer_to_the_oom_killer", _pid("plane"), CLOSED),
    Attempt("enter its namespaces", "enter_namespace", _pid("plane"), CLOSED),
    Attempt("read the spawner's environment", "read", _proc("spawner", "environ"), CLOSED),
    Attempt("read the spawner's memory", "memory", _pid("spawner"), CLOSED),
    Attempt("attach to the spawner", "attach", _pid("spawner"), NEVER),
    Attempt("signal the spawner", "signal_it", _pid("spawner"), UNTOUCHED, UNTOUCHED_FROM_CONFINED),
    Attempt("read the memory of its network gate", "memory", _pid("gate"), CLOSED),
    Attempt("see it in the list of processes", "see", _pid("plane"), SEEN),
    Attempt("reach its port on loopback", "tcp", _port("plane_port"), REACHED),
)

SERVICES = (
    Attempt("Postgres by its socket", "unix", _socket("postgres_socket", "postgres"), CLOSED, CLOSED_AT_LAST),
    Attempt("Redis by its socket", "unix", _socket("redis_socket", "redis"), CLOSED, CLOSED_AT_LAST),
    Attempt("read a password", "read", _at("plane_home", "embedded/postgres.password"), CLOSED, CLOSED_FROM_CONFINED),
    Attempt("read the memory of Postgres", "memory", _pid("postgres"), CLOSED, OFTEN_CLOSED),
    Attempt(
        "shared memory of Postgres",
        "shared_memory",
        lambda scene: {"segment": scene.segment},
        (OF_ANOTHER_NAMESPACE, OF_ANOTHER_NAMESPACE, OF_ANOTHER_NAMESPACE),
        in_container=(DENIED | OPEN, DENIED | OPEN, OF_ANOTHER_NAMESPACE),
    ),
    Attempt("a service on loopback, as either may be", "tcp", _port("loopback_port"), REACHED),
    Attempt("UDP on loopback", "udp", _port("udp_port"), REACHED),
)

NETWORK = (
    Attempt(
        "a private address",
        "tcp",
        lambda scene: {"host": scene.private_address, "port": scene.private_port},
        REACHED,
    ),
    Attempt("a private range", "tcp", _as_it_is(host="10.0.0.1", port=80), LEFT_TO_THE_HOST),
    Attempt("the metadata of a cloud", "tcp", _as_it_is(host="169.254.169.254", port=80), LEFT_TO_THE_HOST),
    Attempt(
        "an abstract socket",
        "abstract",
        lambda scene: {"called": scene.abstract},
        (OPEN, NOT_ALLOWED, UNREACHABLE),
    ),
    Attempt("a socket that everybody may use", "unix", _at("open_socket"), CLOSED_AT_LAST),
    Attempt("a socket of root's, as Docker's is", "unix", _at("closed_socket"), CLOSED),
    Attempt("a raw socket", "raw", _as_it_is(), NEVER),
    Attempt("a packet socket", "packets", _as_it_is(), NEVER),
)

FILES = (
    Attempt("write into /etc", "write", _new_in("/etc"), READ_ONLY),
    Attempt("write into /usr", "write", _new_in("/usr"), READ_ONLY),
    Attempt("write into /var/tmp", "write", _new_in("/var/tmp"), (OPEN, *READ_ONLY[1:])),
    Attempt("read what everybody may read", "read", _at("public_file"), CLOSED_FROM_CONFINED),
    Attempt("read the passwords of its users", "read", _as_it_is(path="/etc/shadow"), CLOSED),
    Attempt(
        "read what lies in its /tmp",
        "read",
        _at("tmp_file"),
        (HIDDEN, HIDDEN, HIDDEN),
        in_container=(OPEN, DENIED, HIDDEN),
    ),
    Attempt(
        "read what lies in its /dev/shm",
        "read",
        _at("shm_file"),
        (HIDDEN, HIDDEN, HIDDEN),
        in_container=CLOSED_AT_LAST,
    ),
)

KERNEL = (
    Attempt("mount", "mount", _at("own_home"), NEVER),
    Attempt("the keyring of the session", "keyring", _as_it_is(), (OPEN, NOT_ALLOWED, NOT_ALLOWED), in_container=NEVER),
    Attempt("load a module", "load_module", _as_it_is(), (NO_MODULES, NOT_ALLOWED, NOT_ALLOWED)),
    Attempt("a user namespace", "user_namespace", _as_it_is(), (HOST, NOT_ALLOWED, NOT_ALLOWED)),
    Attempt("become root", "become_root", _as_it_is(), (NO_SUCH_USER, NO_SUCH_USER, NO_SUCH_USER)),
)

ATTEMPTS = {
    f"{of}: {attempt.what}": attempt
    for of, attempts in (
        ("another instance", ANOTHER_INSTANCE),
        ("the control plane", CONTROL_PLANE),
        ("its services", SERVICES),
        ("the network", NETWORK),
        ("the host's files", FILES),
        ("the kernel", KERNEL),
    )
    for attempt in attempts
}
