"""Where builds run: as nobody else, with nothing of ours, within bounds, and with every line heard."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from controlplane.deploy.build import disk
from controlplane.deploy.build.workplace import BuildHost, Workplace, open_workplace
from controlplane.errors import BuildFailed, SourceRejected
from runtimes.recipe import Place, Step
from tests.deploy.build.conftest import Heard, with_settings

WAIT_S = 60.0
AS_ROOT = os.geteuid() == 0


def shell(script: str, **members: object) -> Step:
    return Step(name="test", argv=("sh", "-c", script), **members)  # type: ignore[arg-type]


@asynccontextmanager
async def place_in(host: BuildHost, folder: Path, heard: Heard, cache: Path | None = None) -> AsyncIterator[Workplace]:
    folder = folder / "place"
    folder.mkdir(mode=0o700, exist_ok=True)
    with trio.fail_after(WAIT_S):
        async with open_workplace(host, folder, heard, cache=cache) as place:
            yield place


async def test_a_step_runs_as_a_user_of_its_own_in_the_tree(build_host, common_folder, heard):
    async with place_in(build_host, common_folder, heard) as place:
        said = await place.run(shell("id -u; pwd; touch made; umask"))
        assert said.splitlines() == [str(place.uid or os.geteuid()), str(place.tree), "0077"]
        status = (place.tree / "made").stat()
    assert status.st_uid == (place.uid or os.geteuid())
    assert heard.phases == ["build: test"]
    assert heard.lines == said.splitlines()
    if AS_ROOT:
        assert place.uid


async def test_nothing_of_the_control_planes_environment_reaches_it_but_what_is_passed(
    build_host, common_folder, heard, monkeypatch
):
    host = with_settings(build_host, child_env_pass=("PASSED",))
    host.environ["PASSED"] = "on"  # type: ignore[index]
    async with place_in(host, common_folder, heard) as place:
        env = dict(line.partition("=")[::2] for line in (await place.run(shell("env"))).splitlines())
    assert env["PASSED"] == "on"
    assert "SECRET_KEY" not in env
    assert env["HOME"] == str(place.folder / "home")
    assert env["npm_config_cache"] == str(place.folder / "cache" / "npm")


async def test_a_place_in_a_word_is_where_the_tree_and_the_cache_are(build_host, common_folder, heard):
    cache = common_folder / "cache"
    async with place_in(build_host, common_folder, heard, cache) as place:
        step = Step(
            name="echo",
            argv=("sh", "-c", 'echo "$0" "$V"', Place("tree", "a/b", before="--x=")),
            env=(("V", Place("cache")),),
        )
        assert await place.run(step) == f"--x={place.tree}/a/b {cache}"


async def test_a_cache_follows_its_owner_from_one_builds_user_to_the_next(build_host, common_folder, heard):
    cache = common_folder / "cache"
    async with place_in(build_host, common_folder, heard, cache) as place:
        await place.run(Step(name="fill", argv=("touch", Place("cache", "first"))))
    if AS_ROOT:  # as if it had been built by a user that is another's by now
        for path in (cache, cache / "first"):
            os.chown(path, 61_150, 61_150)
    async with place_in(build_host, common_folder, heard, cache) as place:
        await place.run(Step(name="use", argv=("mv", Place("cache", "first"), Place("cache", "second"))))
    assert [path.name for path in cache.iterdir()] == ["second"]


async def test_a_failed_step_says_which_tool_how_and_its_last_words(build_host, common_folder, heard):
    async with place_in(build_host, common_folder, heard) as place:
        with pytest.raises(BuildFailed) as failed:
            await place.run(shell("for i in $(seq 30); do echo line $i >&2; done; exit 7"))
    assert failed.value.detail == "test: sh exited with status 7"
    assert failed.value.evidence["exit_code"] == 7
    assert failed.value.evidence["stderr_tail"] == [f"line {number}" for number in range(11, 31)]


async def test_a_killed_step_names_the_signal(build_host, common_folder, heard):
    async with place_in(build_host, common_folder, heard) as place:
        with pytest.raises(BuildFailed, match="killed by SIGSEGV") as failed:
            await place.run(shell("kill -SEGV $$"))
    assert failed.value.evidence["signal"] == "SIGSEGV"


async def test_a_tool_that_is_not_there_is_named(build_host, common_folder, heard):
    async with place_in(build_host, common_folder, heard) as place:
        with pytest.raises((BuildFailed, SourceRejected), match="no-such-tool"):
            await place.run(Step(name="x", argv=("no-such-tool",)))


async def test_what_a_step_leaves_running_ends_with_it(build_host, common_folder, heard):
    async with place_in(build_host, common_folder, heard) as place:
        said = await place.run(shell("setsid sleep 1000 >/dev/null 2>&1 & echo $!"))
        assert not Path(f"/proc/{said}").exists()


async def test_a_step_that_hangs_on_its_input_gets_none(build_host, common_folder, heard):
    async with place_in(build_host, common_folder, heard) as place:
        assert await place.run(shell("cat; echo done")) == "done"


async def test_a_cancelled_step_leaves_no_process(build_host, common_folder, heard):
    async with place_in(build_host, common_folder, heard) as place:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(place.run, shell("echo $$; exec sleep 1000"))
            while not heard.lines:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert not Path(f"/proc/{heard.lines[0]}").exists()
        assert build_host.spawner.statistics().jobs == 0


async def test_a_build_that_fills_the_disk_is_ended(build_host, common_folder, heard):
    host = with_settings(build_host, max_disk_usage_mb=8, auto_isolation="confined")
    script = "for i in 1 2 3 4; do dd if=/dev/zero of=f$i bs=1M count=4 2>/dev/null; done; exec sleep 1000"
    async with place_in(host, common_folder, heard) as place:
        with pytest.raises(BuildFailed, match="more than 8 MiB of disk"):
            await place.run(shell(script))


DEEP = """
at=d$(printf %0199d 0)
for i in $(seq 45); do mkdir $at && cd -P $at; done
for i in 1 2; do dd if=/dev/zero of=file$i bs=1M count=6 2>/dev/null; done
exec sleep 1000
"""
NAMELESS = """
exec 8>a 9>b; rm a b
for i in 8 9; do dd if=/dev/zero bs=1M count=6 2>/dev/null >&$i; done
exec sleep 1000
"""


@pytest.mark.parametrize("script", [DEEP, NAMELESS], ids=["below a long path", "in a file without a name"])
async def test_a_build_that_fills_the_disk_out_of_sight_is_ended(build_host, common_folder, heard, script):
    host = with_settings(build_host, max_disk_usage_mb=8, auto_isolation="confined")
    async with place_in(host, common_folder, heard) as place:
        with pytest.raises(BuildFailed, match="more than 8 MiB of disk"):
            await place.run(shell(script))


async def test_a_build_that_makes_too_many_files_is_ended(build_host, common_folder, heard, monkeypatch):
    monkeypatch.setattr(disk, "ENTRIES_MAX", 200)
    host = with_settings(build_host, auto_isolation="confined")
    async with place_in(host, common_folder, heard) as place:
        with pytest.raises(BuildFailed, match="more than 200 files and folders"):
            await place.run(shell("for i in $(seq 300); do : >f$i; done; exec sleep 1000"))


async def test_colours_and_progress_bars_are_left_out_of_the_log(build_host, common_folder, heard):
    async with place_in(build_host, common_folder, heard) as place:
        await place.run(shell(r"printf '\033[1;31mred\033[0m\n10%%\r100%%\n\n\033]0;t\007x\n'"))
    assert heard.lines == ["red", "100%", "x"]


@pytest.mark.needs("root")  # which gives builds a user of their own
async def test_a_build_has_no_rights_and_cannot_read_what_is_corrals(build_host, common_folder, heard):
    (common_folder / "key").write_text("secret")
    (common_folder / "key").chmod(0o600)
    async with place_in(build_host, common_folder, heard) as place:
        said = await place.run(
            shell(f"grep -E 'CapEff|NoNewPrivs' /proc/self/status; cat {common_folder}/key 2>&1 || :")
        )
        assert stat.S_IMODE(place.folder.stat().st_mode) == 0o711
    assert "CapEff:\t0000000000000000" in said
    assert "NoNewPrivs:\t1" in said
    assert "Permission denied" in said
