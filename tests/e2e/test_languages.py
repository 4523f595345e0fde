"""A server of each language's own MCP SDK, from every kind of source, called in both eras of the protocol."""

from __future__ import annotations

import functools
import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from attrs import frozen

from controlplane.config import Config
from tests import servers
from tests.e2e.adding import assert_adds
from tests.e2e.plane import STRONGEST, open_plane, wait_until
from tests.e2e.sources import files_of, in_base64, tar_of, zip_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.plane import Plane
    from tests.e2e.sources import Files, Origin

pytestmark = pytest.mark.network
BUILD_S = 300
"""For one deploy; the SDK of Rust takes 100 s of a core."""
RETURN_S = 120
"""For all of them to run again, on a slow machine."""
UNOPTIMISED = "CARGO_PROFILE_RELEASE_OPT_LEVEL"
in_thread = trio.to_thread.run_sync


@frozen
class Sample:
    """One server: its folder, the file of it that can be deployed alone, and what that then depends on."""

    language: str
    entry_point: str | None
    """What is found to run in the folder."""
    file: str
    dependencies: tuple[str, ...]
    pressed: str
    """How its tar is pressed."""
    needs: tuple[str, ...] = ()

    @property
    def files(self) -> Files:
        return files_of(servers.HERE / "sdk" / self.language)


SAMPLES = {
    sample.language: sample
    for sample in (
        Sample("python", "server.py", "server.py", ("mcp>=2.3,<2.4",), ".gz"),
        Sample("node", "server.js", "server.js", ("@modelcontextprotocol/server@2.4.0", "zod@^4.0.0"), ".xz", ("npm",)),
        Sample(
            "typescript",
            "dist/server.js",
            "src/server.ts",
            ("@modelcontextprotocol/server@2.4.0", "zod@^4.0.0"),
            ".zst",
            ("npm",),
        ),
        Sample("go", None, "main.go", ("github.com/modelcontextprotocol/go-sdk@v1.8.0",), ".bz2", ("go",)),
        Sample(
            "rust",
            None,
            "src/main.rs",
            ("rmcp[transport-io]@3.11", "serde[derive]@1", "tokio[macros,rt]@1"),
            ".gz",
            ("rust",),
        ),
    )
}
"""The cheapest to build comes first."""


def direct(sample: Sample, _origin: Origin) -> dict[str, Any]:
    data = in_base64(sample.files[sample.file])
    return {
        "source_type": "direct",
        "source_data": data,
        "entry_point": Path(sample.file).name,
        "dependencies": list(sample.dependencies),
    }


def zipped(sample: Sample, _origin: Origin) -> dict[str, Any]:
    return {"source_type": "zip", "source_data": in_base64(zip_of(sample.files))}


def tarred(sample: Sample, _origin: Origin) -> dict[str, Any]:
    return {"source_type": "tar", "source_data": in_base64(tar_of(sample.files, sample.pressed))}


def in_parts(sample: Sample, _origin: Origin) -> dict[str, Any]:
    return {"source_type": "tar", "part": tar_of(sample.files, ".gz")}


def at_address(sample: Sample, origin: Origin) -> dict[str, Any]:
    return {"source_type": "zip", "source_url": origin.serve(f"{sample.language}.zip", zip_of(sample.files))}


def at_ref(sample: Sample, origin: Origin) -> dict[str, Any]:
    """On a tag; the branch that would be taken without it has nothing that runs."""
    name = f"{sample.language}-tagged"
    origin.publish(name, sample.files, "next", tag="v1")
    url = origin.publish(name, {"README": b"Nothing is here yet."})
    return {"source_type": "git", "source_url": f"{url}#v1"}


def in_subdir(sample: Sample, origin: Origin) -> dict[str, Any]:
    """Beside another server, of another language."""
    files = {f"servers/adder/{path}": data for path, data in sample.files.items()}
    url = origin.publish(f"{sample.language}-many", {"servers/echo/echo.py": servers.source("echo.py"), **files})
    return {"source_type": "git", "source_url": url, "source_subdir": "servers/adder"}


OF_FOLDERS: tuple[Callable[[Sample, Origin], dict[str, Any]], ...] = (
    zipped,
    tarred,
    in_parts,
    at_address,
    at_ref,
    in_subdir,
)
KINDS = (*OF_FOLDERS, direct)


@pytest.fixture(scope="module")
def plane(origin: Origin) -> Iterator[Plane]:
    """With every limit as it is by default: builds must do with that. Rust optimises nothing, which halves its time."""
    passed = ",".join((*Config().child_env_pass, UNOPTIMISED))
    with open_plane(**STRONGEST, **origin.settings, **{"CHILD_ENV_PASS": passed, UNOPTIMISED: "0"}) as opened:
        yield opened.start()


def name_of(sample: Sample, kind: Callable[..., Any]) -> str:
    return f"{sample.language}-{kind.__name__}".replace("_", "-")


def deploy(plane: Plane, origin: Origin, sample: Sample, kind: Callable[..., Any]) -> dict[str, Any]:
    """Deploy it unless it is there; nothing says which language it is, or what to run, but the source itself."""
    name = name_of(sample, kind)
    if plane.request("GET", f"/instances/{name}").status_code != 200:
        body = {"name": name, **kind(sample, origin)}
        part = body.pop("part", None)
        sent: dict[str, Any] = {"json": body}
        if part is not None:
            sent = {"files": {"spec": (None, json.dumps(body), "application/json"), "source": ("a.tar.gz", part)}}
        answer = plane.request("POST", f"/api/v2/deploy?wait={BUILD_S}", timeout=BUILD_S, **sent)
        assert answer.status_code == 201, answer.text
    return plane.instance(name)


def param(sample: Sample, kind: Callable[..., Any]) -> Any:
    needs = (*sample.needs, *(("git",) if kind in (at_ref, in_subdir) else ()))
    return pytest.param(sample, kind, marks=[pytest.mark.needs(*needs)] if needs else [], id=name_of(sample, kind))


@pytest.mark.parametrize(("sample", "kind"), [param(sample, kind) for sample in SAMPLES.values() for kind in KINDS])
async def test_it_is_guessed_built_and_answers_in_both_eras(
    plane: Plane, origin: Origin, sample: Sample, kind: Callable[..., Any], figure: Callable[..., None]
) -> None:
    began = time.monotonic()

    instance = await in_thread(functools.partial(deploy, plane, origin, sample, kind))

    figure("deployed after", time.monotonic() - began, "s")
    assert (instance["status"], instance["language"]) == ("running", sample.language)
    assert instance["entry_point"] == (Path(sample.file).name if kind is direct else sample.entry_point)
    assert instance["protocol"]["era"] == "modern"
    await assert_adds(plane, instance["name"])


def installs(plane: Plane, origin: Origin, sample: Sample) -> set[str]:
    return {deploy(plane, origin, sample, kind)["resolved"]["install"] for kind in OF_FOLDERS}


@pytest.mark.needs("git")
@pytest.mark.parametrize(
    "sample",
    [pytest.param(sample, marks=pytest.mark.needs(*sample.needs), id=name) for name, sample in SAMPLES.items()],
)
def test_the_same_files_are_built_once_whatever_way_they_came(plane: Plane, origin: Origin, sample: Sample) -> None:
    assert len(installs(plane, origin, sample)) == 1


@pytest.mark.needs("git")
def test_what_was_fetched_is_said(plane: Plane, origin: Origin) -> None:
    tagged = deploy(plane, origin, SAMPLES["python"], at_ref)["resolved"]
    fetched = deploy(plane, origin, SAMPLES["python"], at_address)["resolved"]

    assert tagged["commit"] == origin.commit_of("python-tagged", "v1")
    assert len(fetched["sha256"]) == 64


async def test_all_come_back_without_a_network(plane: Plane, origin: Origin, figure: Callable[..., None]) -> None:
    """All that was deployed above: its tools are led to a proxy where nobody ever calls, as the origin is."""
    names = [instance["name"] for instance in plane.instances()]
    assert names
    asked = len(origin.server.asked)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        await in_thread(plane.stop)
        plane.settings = {**plane.settings, "HTTPS_PROXY": address, "HTTP_PROXY": address}
        began = time.monotonic()
        await in_thread(plane.start)

        def all_run() -> bool:
            return {(instance["name"], instance["status"]) for instance in plane.instances()} == {
                (name, "running") for name in names
            }

        await in_thread(wait_until, all_run, RETURN_S, f"{len(names)} instances to run")
        figure("instances", str(len(names)))
        figure("all ran after", time.monotonic() - began, "s")
        for name in names:
            await assert_adds(plane, name)
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert len(origin.server.asked) == asked
