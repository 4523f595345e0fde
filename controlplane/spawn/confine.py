"""What a child goes through between fork and exec: it is confined, then becomes the program.

Each step has a name. When one fails, nothing runs: the step's name, the errno
and a sentence go back over `report_fd`, which closes by itself at exec. No step
is ever skipped because it failed.

Refuses to run an instance or a build as uid 0. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from controlplane.spawn import bubblewrap, landlock, linux, netns, seccomp, view
from controlplane.spawn.confinement import GATED_NETWORK, HOST_NETWORK, LEVELS, NO_NETWORK, Bind, Confinement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from controlplane.spawn.cgroups import Hierarchy
    from controlplane.spawn.messages import Order

UMASK = 0o077
UNPRIVILEGED_ID = 65534
"""`nobody`: what a service that refuses to run as root sees itself as, inside a user namespace of its own."""
CATCHABLE = tuple(sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
REPORT_BYTES = 4096
"""At most PIPE_BUF, so that a report is written whole or not at all."""
FAILED_EXIT = 127
FIRST_FREE_FD = 3


class Host(NamedTuple):
    """What the spawner found out about its host once, for all its children."""

    was_root: bool
    system: view.System
    bwrap: str | None
    hierarchy: Hierarchy | None


class Child(NamedTuple):
    """What the steps work on. `gate_fd` is -1 where the network is not gated."""

    order: Order
    stdio: Sequence[int]
    report_fd: int
    gate_fd: int
    spawner: int
    host: Host

    @property
    def level(self) -> str:
        return self.order.confinement.level


class Refused(OSError):
    """Not an error of the system: a rule of ours forbids it."""


def refusal(order: Order, *, has_gate: bool = False) -> str | None:
    """Why an order is never carried out, whatever the system would allow; None if it may be."""
    root = os.geteuid() == 0
    if order.kind not in ("instance", "build", "service"):
        return f"there is no kind of job {order.kind!r}"
    if order.kind != "service" and root and not order.uid:
        return "an instance or a build never runs as root: it needs a user id of its own"
    if not root and order.uid not in (None, os.geteuid()):
        return "only root can run a job as another user"
    if not order.argv:
        return "there is no command"
    if has_gate != (order.confinement.network == GATED_NETWORK):
        return "a gated network and the socket of its gate go together"
    return _misfit(order.confinement)


def _misfit(confinement: Confinement) -> str | None:
    """Why a confinement holds less than it says; None if it does not."""
    level, network = confinement.level, confinement.network
    if level not in LEVELS:
        return f"there is no isolation level {level!r}"
    if network == NO_NETWORK and level == "process":
        return "nothing keeps a job of level process from the network"
    if network == GATED_NETWORK and level != "namespaced":
        return f"a gated network needs the level namespaced, not {level}"
    if level == "namespaced" and network == HOST_NETWORK:
        return "the level namespaced has no part in the host's network"
    if level == "confined" and any(bind.source != bind.target for bind in confinement.binds):
        return "at the level confined everything is seen where it is"
    return None


def _stdio(child: Child) -> None:
    for target, fd in enumerate(child.stdio):
        os.dup2(fd, target, inheritable=True)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in (child.report_fd, child.gate_fd):
            try:
                os.close(fd)
            except OSError as error:
                if error.errno != errno.EBADF:  # the listing's own descriptor
                    raise


def _rlimits(child: Child) -> None:
    for name, value in {**child.order.rlimits, "CORE": 0}.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:
            raise Refused(errno.EINVAL, f"there is no resource limit {name}")
        _soft, hard = resource.getrlimit(kind)
        ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (ceiling, ceiling))


def _group(child: Child) -> None:
    group = child.order.confinement.group
    if group is not None:
        if child.host.hierarchy is None:
            raise Refused(errno.ENOTSUP, "this host gives Corral no control groups")
        child.host.hierarchy.enter(group.name)


def _umask(_child: Child) -> None:
    os.umask(UMASK)


def _namespaces(child: Child) -> None:
    """Those that are made here; at the level `namespaced` bubblewrap makes all but the network's."""
    order = child.order
    uid, gid = os.getuid(), os.getgid()
    if child.level == "namespaced":
        if not child.host.was_root:
            linux.unshare(linux.CLONE_NEWUSER)
            linux.map_own_user(uid, gid, uid, gid)
        _network(child)
        _stage(child)
        return
    if order.userns_root:
        linux.unshare(linux.CLONE_NEWUSER)
        linux.map_own_user(UNPRIVILEGED_ID, UNPRIVILEGED_ID, uid, gid)
    if order.private_tmp is None:
        return
    # With a /tmp of its own go shared memory and message queues: they outlive a process, and count against nobody.
    own = linux.CLONE_NEWNS | linux.CLONE_NEWIPC
    if child.host.was_root:
        linux.unshare(own)
    else:
        linux.unshare(linux.CLONE_NEWUSER | own)
        linux.map_own_user(uid, gid, uid, gid)
    linux.bind_over_tmp(order.private_tmp)


def _stage(child: Child) -> None:
    """Put what is to be seen, and others may write to, where bubblewrap finds it and nobody can swap it for a link."""
    staged = [bind for bind in child.order.confinement.binds if bind.stage is not None]
    if not staged:
        return
    linux.unshare(linux.CLONE_NEWNS)
    linux.keep_mounts_to_oneself()
    for bind in staged:
        assert bind.stage is not None
        fd = _open_mount(bind)
        linux.mount(f"/proc/self/fd/{fd}", bind.stage, linux.MS_BIND | linux.MS_REC)
        os.close(fd)


def _open_mount(bind: Bind) -> int:
    try:
        return linux.open_plainly(bind.source)
    except OSError as error:
        raise Refused(error.errno or 0, f"the mount {bind.source} cannot be shown: {error.strerror}") from None


def _network(child: Child) -> None:
    match child.order.confinement.network:
        case "none":
            netns.isolate()
        case "gated":
            netns.open_gate(child.gate_fd, child.order.confinement.loopback)
            os.close(child.gate_fd)


def _bounding_set(child: Child) -> None:
    # Entering a user namespace gives the right to, and makes it needed.
    order = child.order
    if child.host.was_root or order.private_tmp is not None or order.userns_root or child.level == "namespaced":
        linux.drop_bounding_set()


def _user(child: Child) -> None:
    uid = child.order.uid
    if uid is None or uid == os.getuid():
        return
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _capabilities(_child: Child) -> None:
    linux.drop_capabilities()


def _no_new_privs(_child: Child) -> None:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def _keyring(_child: Child) -> None:
    linux.join_new_session_keyring()


def _signals(_child: Child) -> None:
    signal.set_wakeup_fd(-1)
    for number in CATCHABLE:
        if signal.getsignal(number) != signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _die_with_spawner(child: Child) -> None:
    """After the change of user, which clears it; the spawner may have ended just before."""
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != child.spawner:
        os.kill(os.getpid(), signal.SIGKILL)


def _landlock(child: Child) -> None:
    """Bubblewrap's mounts do the same for a job in namespaces, and Landlock would forbid them."""
    if child.level != "confined":
        return
    order, confinement = child.order, child.order.confinement
    shown = [f"/etc/{name}" for name in view.ETC_OF_NAMES]
    readable = [bind.source for bind in confinement.binds if not bind.writable and bind.stage is None]
    writable = [bind.source for bind in confinement.binds if bind.writable and bind.stage is None]
    mounts = [(_open_mount(bind), bind.writable) for bind in confinement.binds if bind.stage is not None]
    if order.private_tmp is not None:
        writable.append("/tmp")  # noqa: S108 - its own, by now
    landlock.restrict(
        landlock.Ruleset(
            readable=(*child.host.system.folders, *shown, *view.KERNEL, *readable),
            writable=(*view.DEVICES, *writable),
            descriptors=tuple(mounts),
            no_network=confinement.network == NO_NETWORK,
        )
    )


def _seccomp(child: Child) -> None:
    """For a job in namespaces bubblewrap installs the filter, when its own work is done."""
    if child.level == "confined":
        seccomp.install(seccomp.program(no_network=child.order.confinement.network == NO_NETWORK))


def _cwd(child: Child) -> None:
    order = child.order
    if not any(_is_below(order.cwd, bind.target) and bind.target != bind.source for bind in order.confinement.binds):
        os.chdir(order.cwd)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _candidates(command: str, path: str) -> Iterator[str]:
    """Where a command may be; an empty PATH entry (the current folder) does not count."""
    if "/" in command:
        yield command
    else:
        yield from (os.path.join(folder, command) for folder in path.split(":") if folder)


def _exec(child: Child) -> None:
    """As execvpe(3): the first candidate that runs; a forbidden one is told about if none does."""
    order = child.order
    if order.kind != "service" and 0 in os.getresuid():
        raise Refused(errno.EPERM, "an instance or a build never runs as root")
    run = _exec_shut_in if child.level == "namespaced" else _exec_here
    refused: OSError | None = None
    for program in _candidates(order.argv[0], order.env.get("PATH", os.defpath)):
        try:
            run(child, program)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.lexists(program):
                raise Refused(errno.ENOENT, f"{program} cannot run: the interpreter it names is missing") from None
        except PermissionError:
            # not Path.is_dir, which raises where the folder above may not be entered
            why = "is a folder" if os.path.isdir(program) else "may not be executed"  # noqa: PTH112
            where = f"as uid {os.getuid()}, at isolation level {child.level}"
            refused = Refused(errno.EACCES, f"{program} {why} ({where})")
        except ValueError:
            raise Refused(errno.EINVAL, "an argument or a variable holds a NUL character") from None
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                raise Refused(error.errno, f"{program} is no program for this machine") from None
            raise
    where = "" if "/" in order.argv[0] else " on PATH"
    raise refused or Refused(errno.ENOENT, f"command not found{where}: {order.argv[0]}")


def _exec_here(child: Child, program: str) -> NoReturn:
    os.execve(program, child.order.argv, child.order.env)


def _exec_shut_in(child: Child, program: str) -> NoReturn:
    """By bubblewrap, which would tell of a missing program on the job's own stderr only, so it is looked for first."""
    order, confinement, host = child.order, child.order.confinement, child.host
    if host.bwrap is None:
        raise Refused(errno.ENOTSUP, "bubblewrap is not installed on this host")
    if not any(_is_below(program, bind.target) and bind.target != bind.source for bind in confinement.binds):
        os.stat(program)  # noqa: PTH116
        if os.path.isdir(program) or not os.access(program, os.X_OK):  # noqa: PTH112
            raise PermissionError(errno.EACCES, "not executable", program)
    streams = [fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST_FREE_FD) for fd in (0, 1)]  # before others take the low numbers
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1):
        os.dup2(nothing, fd, inheritable=True)
    texts = [
        (file.path, bubblewrap.in_memory(file.text.encode()))
        for file in bubblewrap.files(os.getuid(), os.getgid(), order.env.get("HOME", "/"))
    ]
    texts += bubblewrap.copies(host.system)
    program_fd = bubblewrap.in_memory(seccomp.program())
    words = bubblewrap.arguments(host.system, order, texts, program_fd)
    words_fd = bubblewrap.in_memory("\0".join(words).encode(errors="surrogateescape"))
    argv = [host.bwrap, "--args", str(words_fd), "--", *bubblewrap.command(order.argv, *streams)]
    os.execve(host.bwrap, argv, order.env)


STEPS: tuple[tuple[str, Callable[[Child], None]], ...] = (
    ("signals", _signals),
    ("session", lambda _child: os.setsid()),
    ("stdio", _stdio),
    ("group", _group),
    ("rlimits", _rlimits),
    ("umask", _umask),
    ("namespaces", _namespaces),
    ("bounding_set", _bounding_set),
    ("user", _user),
    ("keyring", _keyring),
    ("capabilities", _capabilities),
    ("no_new_privs", _no_new_privs),
    ("pdeathsig", _die_with_spawner),
    ("landlock", _landlock),
    ("seccomp", _seccomp),
    ("cwd", _cwd),
    ("exec", _exec),
)
"""In this order. Groups and limits come before the user changes, who could not set them; the death signal after, which
clears it. What shuts the child in comes last, or it would forbid the steps before it."""


def _report(child: Child, stage: str, error: BaseException) -> None:
    number = error.errno or 0 if isinstance(error, OSError) else 0
    text = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    if stage == "cwd":
        text = f"the working directory {child.order.cwd} cannot be entered: {text}"
    document = {"stage": stage, "errno": number, "message": text[: REPORT_BYTES // 8]}
    os.write(child.report_fd, json.dumps(document).encode())


def become(child: Child) -> NoReturn:
    """Go through the steps and exec. Never returns: a child that fails reports why and ends."""
    stage = ""
    try:
        for stage, step in STEPS:  # noqa: B007 - read after the loop has failed
            step(child)
    except BaseException as error:  # whatever it is, this process must not go on as a second spawner
        _report(child, stage, error)
    finally:
        os._exit(FAILED_EXIT)
