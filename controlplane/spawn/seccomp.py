"""seccomp: which system calls a process and all it starts may make, as a filter in classic BPF.

A list of what is denied, with EPERM: what a server has no use for and what has led out of sandboxes. The rest of the
kernel stays as it is, so that Node, Python, Go, Rust and Java run unchanged. Namespaces cannot be entered
or made; clone3, whose flags no filter can see, says that it does not exist, and libc takes clone instead.

Standard library only. Sources: seccomp(2), linux/filter.h, and the tables of numbers in
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import struct
import sys
import termios
from typing import NamedTuple

from controlplane.spawn import linux

# -- names and numbers


class Machine(NamedTuple):
    """`audit_arch` is what the kernel calls it; `seccomp` is the number of the call itself."""

    audit_arch: int
    seccomp: int
    numbers: dict[str, int]


COMMON_NUMBERS = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "clone3": 435,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "open_tree_attr": 467,
}
"""Calls from 424 on have one number everywhere."""

X86_64 = Machine(
    0xC000003E,
    317,
    {
        **COMMON_NUMBERS,
        "ioctl": 16,
        "socket": 41,
        "socketpair": 53,
        "clone": 56,
        "ptrace": 101,
        "syslog": 103,
        "uselib": 134,
        "personality": 135,
        "ustat": 136,
        "sysfs": 139,
        "vhangup": 153,
        "modify_ldt": 154,
        "pivot_root": 155,
        "_sysctl": 156,
        "adjtimex": 159,
        "chroot": 161,
        "acct": 163,
        "settimeofday": 164,
        "mount": 165,
        "umount2": 166,
        "swapon": 167,
        "swapoff": 168,
        "reboot": 169,
        "sethostname": 170,
        "setdomainname": 171,
        "iopl": 172,
        "ioperm": 173,
        "create_module": 174,
        "init_module": 175,
        "delete_module": 176,
        "get_kernel_syms": 177,
        "query_module": 178,
        "quotactl": 179,
        "nfsservctl": 180,
        "lookup_dcookie": 212,
        "clock_settime": 227,
        "kexec_load": 246,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "unshare": 272,
        "perf_event_open": 298,
        "fanotify_init": 300,
        "fanotify_mark": 301,
        "name_to_handle_at": 303,
        "open_by_handle_at": 304,
        "clock_adjtime": 305,
        "setns": 308,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "kcmp": 312,
        "finit_module": 313,
        "kexec_file_load": 320,
        "bpf": 321,
        "userfaultfd": 323,
    },
)

AARCH64 = Machine(
    0xC00000B7,
    277,
    {
        **COMMON_NUMBERS,
        "lookup_dcookie": 18,
        "ioctl": 29,
        "umount2": 39,
        "mount": 40,
        "pivot_root": 41,
        "nfsservctl": 42,
        "chroot": 51,
        "vhangup": 58,
        "quotactl": 60,
        "acct": 89,
        "personality": 92,
        "unshare": 97,
        "kexec_load": 104,
        "init_module": 105,
        "delete_module": 106,
        "clock_settime": 112,
        "syslog": 116,
        "ptrace": 117,
        "reboot": 142,
        "sethostname": 161,
        "setdomainname": 162,
        "settimeofday": 170,
        "adjtimex": 171,
        "socket": 198,
        "socketpair": 199,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
        "clone": 220,
        "swapon": 224,
        "swapoff": 225,
        "perf_event_open": 241,
        "fanotify_init": 262,
        "fanotify_mark": 263,
        "name_to_handle_at": 264,
        "open_by_handle_at": 265,
        "clock_adjtime": 266,
        "setns": 268,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "kcmp": 272,
        "finit_module": 273,
        "bpf": 280,
        "userfaultfd": 282,
        "kexec_file_load": 294,
    },
)

MACHINES = {"x86_64": X86_64, "aarch64": AARCH64}

LOOKED_INTO = {"clone", "clone3", "ioctl", "personality", "socket", "socketpair"}
"""All other calls of the tables are denied, whatever their arguments."""

NAMESPACE_FLAGS = 0x7E02_0000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
ADDR_NO_RANDOMIZE = 0x004_0000
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
        "socket": _socket(no_network),
        "socketpair": _socketpair(),
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


def _socket(no_network: bool) -> Block:
    """Never raw, never of a family whose code few have looked at (packet, vsock, Bluetooth, CAN, crypto …)."""
    if no_network:
        return [_argument(0), *_when(socket.AF_UNIX, [_ALLOWED]), _fail(errno.EPERM)]
    netlink = [_argument(2), *_when(NETLINK_ROUTE, [_ALLOWED]), _fail(errno.EPERM)]
    cooked = [_argument(1), (AND, 0, 0, SOCKET_TYPE_MASK), *_when(socket.SOCK_RAW, [_fail(errno.EPERM)]), _ALLOWED]
    allowed = [line for family in FAMILIES for line in _when(family, cooked)]
    return [_argument(0), *_when(socket.AF_NETLINK, netlink), *allowed, _fail(errno.EPERM)]


def _socketpair() -> Block:
    return [_argument(0), *_when(socket.AF_UNIX, [_ALLOWED]), _fail(errno.EPERM)]
