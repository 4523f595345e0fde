"""What bubblewrap is told: a pure function of the host, the order and the descriptors."""

from __future__ import annotations

import os

import pytest

from controlplane.spawn import bubblewrap
from controlplane.spawn.confinement import NO_NETWORK, Bind, Confinement
from controlplane.spawn.messages import Order
from controlplane.spawn.view import System

SYSTEM = System(folders=("/usr", "/etc/ssl"), links=(("usr/bin", "/bin"),))
BINDS = (Bind("/srv/own", "/srv/own", writable=True), Bind("/srv/data", "/data"))
ORDER = Order(
    argv=["/bin/true", "--bind", "/", "/"],
    env={"PATH": "/bin", "SECRET": "moo"},
    cwd="/srv/own",
    kind="instance",
    uid=61001,
    rlimits={},
    private_tmp="/srv/tmp",
    stop_signal=15,
    userns_root=False,
    confinement=Confinement("namespaced", BINDS, NO_NETWORK),
)


def words(order: Order = ORDER) -> list[str]:
    return bubblewrap.arguments(SYSTEM, order, [("/etc/passwd", 7)], 8)


def places(words: list[str], option: str) -> list[tuple[str, str]]:
    """What follows each `option`."""
    return [(words[at + 1], words[at + 2]) for at, word in enumerate(words) if word == option]


def test_the_host_is_seen_through_what_is_listed_and_nothing_else() -> None:
    said = words()
    assert places(said, "--ro-bind") == [("/usr", "/usr"), ("/etc/ssl", "/etc/ssl"), ("/srv/data", "/data")]
    assert places(said, "--bind") == [("/srv/tmp", "/tmp"), ("/srv/own", "/srv/own")]
    assert places(said, "--symlink") == [("usr/bin", "/bin")]
    assert places(said, "--file") == [("7", "/etc/passwd")]


def test_it_has_namespaces_of_its_own_no_capability_and_dies_with_its_parent() -> None:
    said = words()
    for word in ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"):
        assert word in said
    assert said[said.index("--cap-drop") + 1] == "ALL"
    assert said[said.index("--seccomp") + 1] == "8"
    assert "--unshare-net" not in said  # made before
    assert not any(word.endswith("-try") for word in said if word != "--unshare-cgroup-try")


def test_the_root_is_closed_after_all_that_is_put_into_it() -> None:
    said = words()
    closed = max(at for at, word in enumerate(said) if word == "--remount-ro" and said[at + 1] == "/")
    last = max(at for at, word in enumerate(said) if word in ("--bind", "--ro-bind", "--tmpfs", "--symlink"))
    assert closed > last
    assert said[said.index("--chdir") + 1] == "/srv/own"


def test_what_is_in_memory_has_a_size() -> None:
    said = words(ORDER._replace(private_tmp=None))
    assert sum(word == "--tmpfs" for word in said) == 3
    assert all(said[at - 2] == "--size" for at, word in enumerate(said) if word == "--tmpfs")
    assert ("/srv/tmp", "/tmp") not in places(said, "--bind")


def test_neither_the_command_nor_the_environment_is_in_it() -> None:
    assert not {"/bin/true", "moo", "SECRET"} & set(words())


@pytest.mark.parametrize("uid", [1000, 61001])
def test_the_job_is_the_only_user_there_is(uid: int) -> None:
    files = {file.path: file.text for file in bubblewrap.files(uid, uid, "/srv/own/home")}
    assert files["/etc/passwd"] == f"corral:x:{uid}:{uid}:Corral instance:/srv/own/home:/bin/sh\n"
    assert files["/etc/group"] == f"corral:x:{uid}:\n"
    assert "corral" in files["/etc/hosts"]
    assert files["/etc/resolv.conf"] == "nameserver 127.0.0.1\n"


def test_a_text_in_memory_is_read_from_its_start() -> None:
    fd = bubblewrap.in_memory(b"moo")
    try:
        assert os.read(fd, 10) == b"moo"
        assert os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_small_file_of_the_host_is_copied_instead_of_mounted_and_nobody_may_write_to_it(tmp_path) -> None:
    there, gone = tmp_path / "services", tmp_path / "gone"
    there.write_text("ssh 22/tcp")
    system = System(("/usr", str(there)), (), (str(there), str(gone)))
    ((path, fd),) = bubblewrap.copies(system)
    with os.fdopen(fd):
        assert path == str(there)
        assert os.get_inheritable(fd)
    said = bubblewrap.arguments(system, ORDER, [(path, 9)], 3)
    assert places(said, "--ro-bind")[0] == ("/usr", "/usr")
    assert str(there) not in [target for _, target in places(said, "--ro-bind")]
    at = said.index("--file")
    assert said[at - 2 : at + 3] == ["--perms", "0444", "--file", "9", str(there)]
