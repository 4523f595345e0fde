"""What a child is and is not allowed, seen from inside it; and what is said when it cannot be had."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from controlplane.spawn.client import Spawner, SpawnFailed
from tests.needs import skip_for
from tests.spawn.children import PATH, PYTHON, output_of, read_all, start, until, zombies_of


def status_of(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


async def test_the_environment_is_exactly_what_was_given_plus_the_two_markers(
    spawner: Spawner, uid: int | None, marker: str
) -> None:
    given = {"PATH": PATH, "ODD": "a b\nc=ü", "EMPTY": ""}
    program = "import os, json; print(json.dumps(dict(os.environ)))"
    seen = json.loads(await output_of(spawner, PYTHON, "-I", "-c", program, uid=uid, env=given))
    assert seen.pop("CORRAL_OWNER") == marker
    assert len(seen.pop("CORRAL_JOB")) == 16
    seen.pop("LC_CTYPE", None)  # Python adds it to its own environment where the locale is C
    assert seen == given


async def test_no_descriptor_but_the_three_streams_reaches_a_child(spawner: Spawner, uid: int | None) -> None:
    program = "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd')))"
    # 3 is the listing itself
    assert await output_of(spawner, PYTHON, "-I", "-c", program, uid=uid) == "[0, 1, 2, 3]\n"


@pytest.mark.needs("root")
async def test_an_instance_is_another_user_without_groups_or_any_capability(spawner: Spawner, uid: int) -> None:
    status = status_of(await output_of(spawner, "cat", "/proc/self/status", uid=uid))
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split() == [str(uid)] * 4
    assert status["Groups"] == ""
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}


async def test_a_child_can_gain_no_privilege_and_blocks_or_ignores_no_signal(spawner: Spawner, uid: int | None) -> None:
    status = status_of(await output_of(spawner, "cat", "/proc/self/status", uid=uid))
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split()[0] != "0"
    assert int(status["CapEff"], 16) == 0
    assert int(status["SigBlk"], 16) == int(status["SigIgn"], 16) == int(status["SigCgt"], 16) == 0


@pytest.mark.needs("root")
@pytest.mark.parametrize("userns_root", [False, True])
async def test_a_service_keeps_no_capability_of_root(spawner: Spawner, userns_root: bool) -> None:
    if userns_root and not spawner.features.userns_root:
        skip_for("user_namespaces")
    status = status_of(await output_of(spawner, "cat", "/proc/self/status", kind="service", userns_root=userns_root))
    assert status["Uid"].split()[0] == ("65534" if userns_root else "0")
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


async def test_limits_are_those_asked_for_up_to_the_hosts_and_there_is_never_a_core_file(
    spawner: Spawner, uid: int | None
) -> None:
    program = "import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE)[1])"
    few = await output_of(spawner, PYTHON, "-c", program, uid=uid, rlimits={"NOFILE": 123, "CORE": 4096})
    assert few == "(123, 123) 0\n"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    many = await output_of(spawner, PYTHON, "-c", program, uid=uid, rlimits={"NOFILE": hard + 1000})
    assert many == f"({hard}, {hard}) 0\n"


async def test_a_child_leads_its_own_session_and_makes_private_files(spawner: Spawner, uid: int | None) -> None:
    job = await start(spawner, PYTHON, "-c", "import os; print(os.getpid(), os.getsid(0), os.umask(0))", uid=uid)
    pid = str(job.pid)
    assert (await read_all(job.stdout_fd)).split() == [pid, pid, str(0o077)]
    assert os.getsid(0) != job.pid
    await job.kill_all()
    job.close_fds()


async def test_a_child_has_ordinary_priority_whatever_the_spawner_has(spawner: Spawner, uid: int | None) -> None:
    program = "import os; print(os.sched_getscheduler(0) == os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))"
    assert await output_of(spawner, PYTHON, "-c", program, uid=uid) == "True 0\n"


async def test_the_working_directory_is_entered_as_the_target_user(
    spawner: Spawner, uid: int | None, own_folder: Callable[[str], Path]
) -> None:
    folder = own_folder("work")
    assert await output_of(spawner, "pwd", uid=uid, cwd=str(folder)) == f"{folder}\n"


async def test_a_private_tmp_is_seen_by_the_child_alone(
    spawner: Spawner, uid: int | None, own_folder: Callable[[str], Path]
) -> None:
    if not spawner.features.private_tmp:
        skip_for("mount_namespaces")
    folder = own_folder("tmp")
    name = f"corral-{folder.parent.name}"
    command = f"echo here > /tmp/{name}; ls /tmp"
    assert await output_of(spawner, "sh", "-c", command, uid=uid, private_tmp=str(folder)) == f"{name}\n"
    assert (folder / name).read_text() == "here\n"
    assert not Path("/tmp", name).exists()


async def test_arguments_and_environment_far_beyond_a_packet_arrive_whole(spawner: Spawner, uid: int | None) -> None:
    env = {"PATH": PATH, **{f"V{n}": "x" * 100_000 for n in range(8)}}
    program = "import os, sys; print(sum(len(v) for k, v in os.environ.items() if k[0] == 'V'), len(sys.argv[1]))"
    seen = await output_of(spawner, PYTHON, "-c", program, "y" * 100_000, uid=uid, env=env)
    assert seen == "800000 100000\n"


async def test_a_command_is_looked_up_on_the_given_path_and_never_in_the_working_directory(
    spawner: Spawner, uid: int | None, own_folder: Callable[[str], Path]
) -> None:
    folder = own_folder("bin")
    tool = folder / "corral-tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    folder.chmod(0o755)
    assert await output_of(spawner, "corral-tool", uid=uid, env={"PATH": f"/nowhere:{folder}"}) == "found\n"
    with pytest.raises(SpawnFailed, match="command not found on PATH: corral-tool"):
        await start(spawner, "corral-tool", uid=uid, env={"PATH": f"::{PATH}"}, cwd=str(folder))


def _files(folder: Path) -> dict[str, str]:
    folder.chmod(0o755)
    for name, mode, text in (
        ("plain", 0o644, "no program"),
        ("script", 0o755, "#!/no/such/interpreter\n"),
        ("odd", 0o755, "\x7fELF but not really"),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(mode)
    return {"folder": str(folder)}


@pytest.mark.parametrize(
    ("argv", "options", "stage", "number", "words"),
    [
        (["no-such-command"], {}, "exec", errno.ENOENT, "command not found on PATH: no-such-command"),
        (["/no/such/command"], {}, "exec", errno.ENOENT, "command not found: /no/such/command"),
        (["/etc"], {}, "exec", errno.EACCES, "is a folder"),
        (["{folder}/plain"], {}, "exec", errno.EACCES, "may not be executed"),
        (["{folder}/script"], {}, "exec", errno.ENOENT, "the interpreter it names is missing"),
        (["{folder}/odd"], {}, "exec", errno.ENOEXEC, "no program for this machine"),
        (["sh", "a\0b"], {}, "exec", errno.EINVAL, "NUL"),
        (["sh"], {"cwd": "/no/such/folder"}, "cwd", errno.ENOENT, "/no/such/folder cannot be entered"),
        (["sh"], {"cwd": "/etc/passwd"}, "cwd", errno.ENOTDIR, "/etc/passwd cannot be entered"),
        (["sh"], {"rlimits": {"NONSENSE": 1}}, "rlimits", errno.EINVAL, "there is no resource limit NONSENSE"),
        ([], {}, "refused", 0, "there is no command"),
    ],
)
async def test_what_cannot_start_is_told_with_its_stage_and_reason(  # noqa: PLR0917
    spawner: Spawner,
    uid: int | None,
    common_folder: Path,
    argv: list[str],
    options: dict[str, object],
    stage: str,
    number: int,
    words: str,
) -> None:
    names = _files(common_folder)
    with pytest.raises(SpawnFailed) as failed:
        await start(spawner, *(word.format(**names) for word in argv), uid=uid, **options)
    assert (failed.value.stage, failed.value.errno) == (stage, number)
    assert words in failed.value.message
    assert spawner.statistics().jobs == spawner.statistics().spawned == 0


async def test_a_failed_start_leaves_no_process_zombie_or_descriptor(spawner: Spawner, uid: int | None) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        with pytest.raises(SpawnFailed):
            await start(spawner, "no-such-command", uid=uid)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert spawner._link is not None
    reaper = spawner._link.pid
    await until(lambda: not zombies_of(reaper))


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", ["instance", "build"])
@pytest.mark.parametrize("root", [None, 0])
async def test_neither_an_instance_nor_a_build_ever_runs_as_root(spawner: Spawner, kind: str, root: int | None) -> None:
    with pytest.raises(SpawnFailed, match="never runs as root") as failed:
        await start(spawner, "id", uid=root, kind=kind)
    assert failed.value.stage == "refused"


@pytest.mark.needs("plain_user")
async def test_a_plain_user_cannot_run_a_job_as_somebody_else(spawner: Spawner) -> None:
    with pytest.raises(SpawnFailed, match="only root can run a job as another user"):
        await start(spawner, "id", uid=os.geteuid() + 1)


async def test_a_spawn_that_is_cancelled_leaves_nothing(spawner: Spawner, uid: int | None) -> None:
    fds = len(os.listdir("/proc/self/fd"))
    assert spawner._link is not None
    os.kill(spawner._link.pid, signal.SIGSTOP)  # so that it cannot answer in time
    try:
        with trio.move_on_after(0.05) as scope:
            await start(spawner, "sleep", "40", uid=uid)
    finally:
        os.kill(spawner._link.pid, signal.SIGCONT)
    assert scope.cancelled_caught
    assert len(os.listdir("/proc/self/fd")) == fds
    job = await start(spawner, "sleep", "40", uid=uid)  # handled after the cancelled one and its kill
    await until(lambda: len(spawner._jobs) == 1)
    assert await job.census() == 1
    await job.kill_all()
    job.close_fds()
