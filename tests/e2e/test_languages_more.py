"""Servers of further languages, written with nothing but their standard library: what they are is guessed."""

from __future__ import annotations

import functools
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from attrs import frozen

from tests import npm_packages, servers
from tests.e2e.adding import assert_adds
from tests.e2e.plane import STRONGEST, open_plane
from tests.e2e.sources import EXECUTABLE, files_of, in_base64, tar_of
from tests.needs import met

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.plane import Plane
    from tests.e2e.sources import Files

BUILD_S = 120
COMPILE_LIMIT_S = 60
FOLDER = servers.HERE / "languages"
FROM_NPM = Path(__file__).parent / "toolchains"
"""Deno and Bun, as npm has them, for a machine that has them not."""
in_thread = trio.to_thread.run_sync


@frozen
class Sample:
    """One server. A file alone is deployed as `direct`, a folder as a tar; all else is to be found out."""

    language: str
    entry_point: str
    """What is found to run."""
    file: str = ""
    also: tuple[str, ...] = ()
    """Files that it shares with another."""
    needs: str = ""

    @property
    def files(self) -> Files:
        return files_of(FOLDER / self.language) | {name: (FOLDER / name).read_bytes() for name in self.also}

    def body(self) -> dict[str, Any]:
        if self.file:
            return {
                "source_type": "direct",
                "source_data": in_base64(self.files[self.file]),
                "entry_point": self.file,
            }
        return {"source_type": "tar", "source_data": in_base64(tar_of(self.files, ".gz"))}


SAMPLES = (
    Sample("ruby", "server.rb", "server.rb", needs="ruby"),
    Sample("php", "server.php", "server.php", needs="php"),
    Sample("java", "Server.java", "Server.java", needs="java"),
    Sample("deno", "main.ts", also=("answers.ts",), needs="deno"),
    Sample("bun", "index.ts", also=("answers.ts",), needs="bun"),
    Sample("dotnet", "adder.csproj", needs="dotnet"),
)


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    """It finds Deno and Bun where the tests keep them, after those of the machine."""
    folders = [os.environ["PATH"]]
    if met("npm"):
        folders.append(str(npm_packages.installed(FROM_NPM, "toolchains") / "node_modules/.bin"))
    with open_plane(**STRONGEST, PATH=":".join(folders)) as opened:
        yield opened.start()


def deploy(plane: Plane, name: str, **body: Any) -> dict[str, Any]:
    answer = plane.request("POST", f"/api/v2/deploy?wait={BUILD_S}", json={"name": name, **body}, timeout=BUILD_S)
    assert answer.status_code == 201, answer.text
    return plane.instance(name)


@pytest.mark.parametrize(
    "sample", [pytest.param(each, marks=pytest.mark.needs(each.needs), id=each.language) for each in SAMPLES]
)
async def test_it_is_guessed_and_answers_in_both_eras(
    plane: Plane, sample: Sample, figure: Callable[..., None]
) -> None:
    began = time.monotonic()

    instance = await in_thread(functools.partial(deploy, plane, sample.language, **sample.body()))

    figure("deployed after", time.monotonic() - began, "s")
    assert (instance["language"], instance["entry_point"]) == (sample.language, sample.entry_point)
    await assert_adds(plane, sample.language)


@pytest.mark.needs("cc")
async def test_a_program_runs_as_it_is(plane: Plane, tmp_path: Path) -> None:
    """Alone in an archive, there is nothing to say of it; beside others, the entry point names it."""
    program = compiled(tmp_path)
    tars = {
        "alone": tar_of({"server": program}, mode=EXECUTABLE),
        "beside": tar_of({"bin/adder": program, "bin/other": program, "README": b"Run bin/adder."}, mode=EXECUTABLE),
    }
    for name, asked in (("alone", {}), ("beside", {"language": "binary", "entry_point": "bin/adder"})):
        body = {"source_type": "tar", "source_data": in_base64(tars[name]), **asked}
        instance = await in_thread(functools.partial(deploy, plane, name, **body))

        assert (instance["language"], instance["entry_point"]) == ("binary", asked.get("entry_point", "server"))
        await assert_adds(plane, name)


def compiled(folder: Path) -> bytes:
    """A static program, made from C."""
    made = folder / "server"
    argv = ["cc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(made), str(FOLDER / "binary/server.c")]
    subprocess.run(argv, check=True, timeout=COMPILE_LIMIT_S)
    return made.read_bytes()


def test_the_list_of_runtimes_says_what_is_here_and_what_is_missing(plane: Plane) -> None:
    runtimes = {runtime["language"]: runtime for runtime in plane.get("/runtimes")["runtimes"]}

    assert set(runtimes) >= {"python", "node", "typescript", "go", "rust", "binary", *(s.language for s in SAMPLES)}
    assert runtimes["python"]["usable"]
    for sample in SAMPLES:
        found = {tool["name"] for tool in runtimes[sample.language]["tools"]}
        missing = runtimes[sample.language]["missing"]
        assert (sample.language in found) == met(sample.needs)  # its program is called like the language
        assert (sample.language in missing) != met(sample.needs)
        assert (runtimes[sample.language]["hint"] is None) == (missing == [])
