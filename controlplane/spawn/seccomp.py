"""seccomp: which system calls a process and all it starts may make, as a filter in classic BPF.

A list of what is denied, with EPERM: what a server has no use for and what has led out of sandboxes. The rest of the
kernel stays as it is, so that Node, Python, Go, Rust and Java run unchanged. Namespaces cannot be entered or made, and
limits and priorities are a process's own to change, not another's. clone3, whose flags no filter can see, says that it
does not exist, and libc takes clone instead.

Standard library only. Sources: seccomp(2), linux/filter.h.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct
import sys
import termios

from controlplane.spawn import linux
from controlplane.spawn.syscalls import MACHINES, X86_64, Machine

SCHEDULING = {"sched_setattr", "sched_setparam", "sched_setscheduler"}
LOOKED_INTO = {
    *("clone", "clone3", "ioctl", "ioprio_set", "personality", "prlimit64", "setpriority", "socket", "socketpair"),
    *SCHEDULING,
}
"""All other calls of `syscalls` are denied, whatever their arguments."""

ITSELF = 0
"""As a pid: the caller. A process of the same user may otherwise take limits and time from any other, Corral too."""
NAMESPACE_FLAGS = 0x7E02_0000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
ADDR_NO_RANDOMIZE = 0x004_0000
IOPRIO_WHO_PROCESS = 1
PERSONALITIES = (0, ADDR_NO_RANDOMIZE, 0xFFFF_FFFF)
"""Linux as it is, the same for a debugger, and the question which it is; others bring old interfaces back."""
TIOCLINUX = 0x541C
TERMINAL_INPUT = (termios.TIOCSTI, TIOCLINUX)
"""What types into the terminal that the process was started from."""
SOCKET_TYPE_MASK = 0xF
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
NETLINK_ROUTE = 0
"""Of netlink only what getifaddrs(3) asks."""

# -- classic BPF, as for seccomp: the data is `struct seccomp_data`

NUMBER_AT = 0
MACHINE_AT = 4
ARGUMENTS_AT = 16
"""Eight bytes each, of which the lower four come first and are all that the kernel uses of these."""
X32_NUMBERS = 0x4000_0000

LOAD = 0x20
AND = 0x54
EQUALS = 0x15
AT_LEAST = 0x35
ANY_OF = 0x45
RETURN = 0x06

ALLOW = 0x7FFF_0000
KILL_PROCESS = 0x8000_0000
ERRNO = 0x0005_0000

Instruction = tuple[int, int, int, int]
"""(code, steps to jump if true, steps if not, operand)"""
Block = list[Instruction]


def is_supported() -> bool:
    """Whether there is a filter for this machine, and a kernel that takes it."""
    get_action_available = 2
    try:
        machine = MACHINES[_own_machine()]
        linux.syscall(machine.seccomp, get_action_available, 0, struct.pack("=I", KILL_PROCESS))
    except OSError:  # another machine, no seccomp, or a kernel older than 4.14
        return False
    return True


def program(*, no_network: bool = False) -> bytes:
    """The filter for this machine, as `struct sock_filter[]`; with `no_network`, no socket but of AF_UNIX.

    Raises:
        OSError: ENOSYS where there is none for this machine.
    """
    return compiled(_own_machine(), no_network=no_network)


@functools.cache
def compiled(machine_name: str, *, no_network: bool) -> bytes:
    """The filter for one of `MACHINES`."""
    return b"".join(struct.pack("=HBBI", *line) for line in _filter(MACHINES[machine_name], no_network))


def install(filter_program: bytes) -> None:
    """Bind the calling thread and whatever it starts to a filter, for good; no_new_privs is set already."""
    machine = MACHINES[_own_machine()]
    set_mode_filter = 1
    length = len(filter_program) // struct.calcsize("=HBBI")
    linux.syscall(machine.seccomp, set_mode_filter, 0, struct.pack("HP", length, linux.address_of(filter_program)))


def _own_machine() -> str:
    """Not that of a 32-bit Python, whose calls a 64-bit kernel counts otherwise."""
    name = os.uname().machine
    if name not in MACHINES or sys.maxsize <= 2**32:
        raise OSError(errno.ENOSYS, f"no system call filter for {name}")
    return name


def _filter(machine: Machine, no_network: bool) -> Block:
    numbers = machine.numbers
    looked_into = {
        "clone": _clone(),
        "clone3": [_fail(errno.ENOSYS)],
        "ioctl": _ioctl(),
        "personality": _personality(),
        "prlimit64": _prlimit(),
        "setpriority": _priority(os.PRIO_PROCESS),
        "ioprio_set": _priority(IOPRIO_WHO_PROCESS),
        **{name: _only(0, ITSELF) for name in SCHEDULING},
        "socket": _socket(no_network),
        "socketpair": _only(0, socket.AF_UNIX),
    }
    lines = [
        (LOAD, 0, 0, MACHINE_AT),
        (EQUALS, 1, 0, machine.audit_arch),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER_AT),
    ]
    if machine is X86_64:
        lines += [(AT_LEAST, 0, 1, X32_NUMBERS), _fail(errno.ENOSYS)]
    for name, block in looked_into.items():
        lines += _when(numbers[name], block)
    for name in sorted(numbers.keys() - LOOKED_INTO):
        lines += _when(numbers[name], [_fail(errno.EPERM)])
    return [*lines, _ALLOWED]


_ALLOWED: Instruction = (RETURN, 0, 0, ALLOW)


def _fail(number: int) -> Instruction:
    return (RETURN, 0, 0, ERRNO | number)


def _when(value: int, block: Block) -> Block:
    """Go through the block, which returns on each way, if what is loaded equals a value."""
    return [(EQUALS, 0, len(block), value), *block]


def _argument(index: int) -> Instruction:
    return (LOAD, 0, 0, ARGUMENTS_AT + 8 * index)


def _clone() -> Block:
    return [_argument(0), (ANY_OF, 0, 1, NAMESPACE_FLAGS), _fail(errno.EPERM), _ALLOWED]


def _ioctl() -> Block:
    denied = [line for request in TERMINAL_INPUT for line in _when(request, [_fail(errno.EPERM)])]
    return [_argument(1), *denied, _ALLOWED]


def _personality() -> Block:
    allowed = [line for persona in PERSONALITIES for line in _when(persona, [_ALLOWED])]
    return [_argument(0), *allowed, _fail(errno.EPERM)]


def _only(index: int, value: int) -> Block:
    return [_argument(index), *_when(value, [_ALLOWED]), _fail(errno.EPERM)]


def _priority(process: int) -> Block:
    """Of itself only, not of another process, a group or all of a user's."""
    return [_argument(0), *_when(process, _only(1, ITSELF)), _fail(errno.EPERM)]


def _prlimit() -> Block:
    """Set its own, read anybody's: the third argument, a pointer of two halves, says where new limits are."""
    new_limits = _argument(2)
    upper_half = (LOAD, 0, 0, new_limits[3] + 4)
    read = [new_limits, *_when(0, [upper_half, *_when(0, [_ALLOWED]), _fail(errno.EPERM)]), _fail(errno.EPERM)]
    return [_argument(0), *_when(ITSELF, [_ALLOWED]), *read]


def _socket(no_network: bool) -> Block:
    """Never raw, never of a family whose code few have looked at (packet, vsock, Bluetooth, CAN, crypto …)."""
    if no_network:
        return _only(0, socket.AF_UNIX)
    netlink = [_argument(2), *_when(NETLINK_ROUTE, [_ALLOWED]), _fail(errno.EPERM)]
    cooked = [_argument(1), (AND, 0, 0, SOCKET_TYPE_MASK), *_when(socket.SOCK_RAW, [_fail(errno.EPERM)]), _ALLOWED]
    allowed = [line for family in FAMILIES for line in _when(family, cooked)]
    return [_argument(0), *_when(socket.AF_NETLINK, netlink), *allowed, _fail(errno.EPERM)]
