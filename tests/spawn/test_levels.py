"""A job at each isolation level: how it ends, what a signal reaches, and what is said when it cannot start."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from controlplane.spawn.client import Spawner, SpawnFailed
from controlplane.spawn.confinement import LEVELS, NO_NETWORK, Bind, Confinement
from tests.needs import skip_unless
from tests.spawn.children import PYTHON, live_of, names_of, output_of, read_all, read_line, start, start_python, until

PATIENT = """
import os, signal, time
def leave(number, frame):
    os.write(1, b"farewell\\n"); os._exit(0)
signal.signal(signal.SIGTERM, leave)
print("here", flush=True)
time.sleep(40)
"""


@pytest.fixture(params=LEVELS)
def confinement(request: pytest.FixtureRequest) -> Confinement:
    """Each level, with as little as there can be."""
    level: str = request.param
    if level == "confined":
        skip_unless("landlock")
    if level == "namespaced":
        skip_unless("bubblewrap", "user_namespaces")
        return Confinement(level, network=NO_NETWORK)
    return Confinement(level)


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit(127)", 127),
        ("raise SystemExit(255)", 255),
        ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.abort()", -signal.SIGABRT),
    ],
)
async def test_a_program_ends_with_its_own_status_or_signal(
    spawner: Spawner, uid: int | None, confinement: Confinement, program: str, code: int
) -> None:
    job = await start_python(spawner, program, uid=uid, confinement=confinement)
    with trio.fail_after(20):
        assert (await job.wait()).code == code
    await job.kill_all()
    job.close_fds()


async def test_a_signal_reaches_the_program_which_may_leave_by_itself(
    spawner: Spawner, uid: int | None, confinement: Confinement
) -> None:
    job = await start_python(spawner, PATIENT, uid=uid, confinement=confinement)
    assert await read_line(job.stdout_fd) == "here"
    job.signal_nowait(signal.SIGTERM)
    with trio.fail_after(20):
        assert (await job.wait()).code == 0
    assert await read_all(job.stdout_fd) == "farewell\n"
    await job.kill_all()
    job.close_fds()


async def test_a_kill_of_the_known_process_ends_all_of_it(
    spawner: Spawner, uid: int | None, confinement: Confinement
) -> None:
    job = await start_python(spawner, PATIENT, uid=uid, confinement=confinement)
    await read_line(job.stdout_fd)
    names = names_of([job.pid])
    job.signal_nowait(signal.SIGKILL)
    with trio.fail_after(20):
        assert (await job.wait()).code == -signal.SIGKILL
    await job.kill_all()
    await until(lambda: not live_of(names))
    job.close_fds()


async def test_a_command_that_is_missing_is_said_to_be(
    spawner: Spawner, uid: int | None, confinement: Confinement
) -> None:
    with pytest.raises(SpawnFailed, match="command not found on PATH: no-such-command"):
        await start(spawner, "no-such-command", uid=uid, confinement=confinement)
    with pytest.raises(SpawnFailed, match="command not found: /usr/bin/no-such-command"):
        await start(spawner, "/usr/bin/no-such-command", uid=uid, confinement=confinement)


async def test_a_working_folder_that_is_missing_is_said_to_be(
    spawner: Spawner, uid: int | None, confinement: Confinement
) -> None:
    with pytest.raises(SpawnFailed, match="the working directory /no/such/folder cannot be entered"):
        await start(spawner, "true", uid=uid, confinement=confinement, cwd="/no/such/folder")


async def test_what_a_job_does_not_see_it_cannot_start_in(
    spawner: Spawner, uid: int | None, confinement: Confinement, own_folder: Callable[[str], Path]
) -> None:
    """Landlock does not keep anybody from entering a folder, only from what is in it."""
    folder = own_folder("work")
    options = {"uid": uid, "confinement": confinement, "cwd": str(folder)}
    if confinement.level != "namespaced":
        assert await output_of(spawner, "true", **options) == ""
        return
    job = await start(spawner, "true", **options)
    assert str(folder) in await read_all(job.stderr_fd)
    with trio.fail_after(20):
        assert (await job.wait()).code == 1
    await job.kill_all()
    job.close_fds()


@pytest.mark.needs("bubblewrap", "user_namespaces")
@pytest.mark.parametrize("writable", [False, True])
async def test_a_bind_is_seen_elsewhere_and_written_to_only_if_it_may_be(
    spawner: Spawner, uid: int | None, own_folder: Callable[[str], Path], writable: bool
) -> None:
    folder = own_folder("data")
    (folder / "note").write_text("moo")
    (folder / "note").chmod(0o644)
    binds = (Bind(str(folder), "/data", writable),)
    confinement = Confinement("namespaced", binds, NO_NETWORK)
    program = "import os\nprint(open('/data/note').read(), os.access('/data', os.W_OK), os.getcwd())"
    said = await output_of(spawner, PYTHON, "-c", program, uid=uid, confinement=confinement, cwd="/data")
    assert said == f"moo {writable} /data\n"


@pytest.mark.needs("bubblewrap", "user_namespaces")
async def test_a_program_in_namespaces_is_alone_there(spawner: Spawner, uid: int | None) -> None:
    confinement = Confinement("namespaced", network=NO_NETWORK)
    program = "import os; print(sorted(int(n) for n in os.listdir('/proc') if n.isdigit()), os.uname().nodename)"
    assert await output_of(spawner, PYTHON, "-c", program, uid=uid, confinement=confinement) == "[1, 2] corral\n"
