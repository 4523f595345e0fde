"""What lies where other users cannot look is carried to where they can: once, whole, and nothing besides."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from controlplane.deploy.toolchain import Toolchain, build
from controlplane.errors import BuildFailed
from tests.deploy.hosts import NOBODY, assert_true_to_its_word, built, run, tool

TIMEOUT_S = 20


@pytest.fixture
def folder(common_folder: Path) -> Path:
    """Where the toolchain is built."""
    return common_folder / "runtimes"


@pytest.fixture
def home(common_folder: Path) -> Path:
    """A home that nobody else may enter."""
    folder = common_folder / "home"
    folder.mkdir(mode=0o700)
    return folder


def rust(root: Path) -> Path:
    """A Rust toolchain as rustup lays it out, its programs copies of a small real one."""
    tool(root / "bin", "cargo", "rustc", "cargo-fmt")
    for name in (
        "lib/librustc_driver.so",
        "lib/rustlib/src/lib.rs",
        "lib/rustlib/x86/lib/libstd.rlib",
        "share/doc/std",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def rustup(home: Path, *, default: str = "stable-x86") -> Path:
    """Rustup with proxies in `home/.cargo/bin`."""
    proxies = tool(home / ".cargo" / "bin", "rustup")
    for name in ("cargo", "rustc"):
        (proxies / name).symlink_to("rustup")
    (home / ".rustup").mkdir()
    (home / ".rustup" / "settings.toml").write_text(f'version = "12"\ndefault_toolchain = "{default}"\n')
    return proxies


def on(folder: Path, *search: Path, environ: dict[str, str]) -> Toolchain:
    path = os.pathsep.join(map(str, search))
    return build(folder, by_others=True, host_path=path, system_path=(), usual_places=(), environ=environ)


def bundles(folder: Path) -> list[str]:
    return sorted(
        found.name.partition("-")[0] for found in folder.iterdir() if found.name not in ("bin", "versions.json")
    )


# -- the real thing


@pytest.mark.needs("root", "rust")
def test_the_hosts_own_rust_builds_for_a_user_who_cannot_enter_our_home(folder: Path, common_folder: Path) -> None:
    toolchain = build(folder, by_others=True, host_path=os.environ["PATH"])
    toolchain.provide(["cargo", "rustc", "cc"])
    crate = common_folder / "crate"
    (crate / "src").mkdir(parents=True)
    (crate / "Cargo.toml").write_text('[package]\nname = "cow"\nversion = "0.1.0"\nedition = "2021"\n')
    (crate / "src" / "main.rs").write_text('fn main() { println!("moo"); }\n')
    for path in (crate, *crate.rglob("*")):
        os.chown(path, NOBODY, NOBODY)

    run(toolchain, "cargo", "build", "--offline", user=NOBODY, cwd=crate, CARGO_HOME=str(crate / ".cargo"))

    assert run(toolchain, str(crate / "target" / "debug" / "cow"), user=NOBODY) == "moo"


# -- rustup


@pytest.mark.parametrize("named", ["stable-x86", "stable"])
@pytest.mark.needs("root")
def test_what_rustup_stands_for_is_carried_when_it_is_wanted(folder: Path, home: Path, named: str) -> None:
    proxies = rustup(home, default=named)
    rust(home / ".rustup" / "toolchains" / "stable-x86")
    rust(home / ".rustup" / "toolchains" / "stable-2026-01-01-x86")

    toolchain = built(folder, proxies)

    assert toolchain.missing(["cargo", "rustc"]) == []
    assert bundles(folder) == [], "a start does not wait for it"
    assert shutil.which("cargo", path=toolchain.path) is None

    toolchain.provide(["cargo"])

    assert run(toolchain, "rustc", "moo", user=NOBODY) == "moo"
    (carried,) = folder.glob("rust-*")
    below = {path.relative_to(carried).as_posix() for path in carried.rglob("*") if path.is_file()}
    assert below == {"bin/cargo", "bin/rustc", "lib/librustc_driver.so", "lib/rustlib/x86/lib/libstd.rlib"}
    assert_true_to_its_word(toolchain)


def test_rustups_default_may_be_said_in_the_environment(folder: Path, common_folder: Path) -> None:
    proxies = rustup(common_folder, default="stable-x86")
    for name in ("stable-x86", "nightly-x86"):
        rust(common_folder / "elsewhere" / "toolchains" / name)

    toolchain = on(
        folder, proxies, environ={"RUSTUP_HOME": str(common_folder / "elsewhere"), "RUSTUP_TOOLCHAIN": "nightly"}
    )

    assert "nightly-x86" in Path(toolchain.tools["cargo"] or "").resolve().parts
    assert bundles(folder) == [], "it can be run where it is"


@pytest.mark.parametrize("settings", ["", "version = ", 'default_toolchain = "gone-x86"', 'default_toolchain = "../x"'])
def test_a_rustup_without_a_toolchain_is_none(folder: Path, common_folder: Path, settings: str) -> None:
    proxies = rustup(common_folder)
    (common_folder / ".rustup" / "settings.toml").write_text(settings)

    toolchain = built(folder, proxies)

    assert toolchain.missing(["cargo"]) == ["cargo"]
    assert "no default toolchain" in toolchain.advice(["cargo"])


def test_a_proxy_may_be_a_hard_link(folder: Path, common_folder: Path) -> None:
    proxies = rustup(common_folder)
    rust(common_folder / ".rustup" / "toolchains" / "stable-x86")
    (proxies / "cargo").unlink()
    os.link(proxies / "rustup", proxies / "cargo")

    assert ".rustup" in Path(built(folder, proxies).tools["cargo"] or "").resolve().parts


# -- what is carried


@pytest.mark.needs("root")
def test_files_are_linked_where_that_gives_others_just_what_they_need(folder: Path, home: Path) -> None:
    root = rust(home / "rust")
    library = root / "lib" / "librustc_driver.so"
    modes = {"lib/closed": 0o600, "lib/written": 0o666, "bin/rustc": 0o700, "bin/cargo": 0o4755}
    for name, mode in modes.items():
        (root / name).touch()
        (root / name).chmod(mode)
    (root / "lib" / "absolute").symlink_to(library)
    (root / "lib" / "relative").symlink_to("librustc_driver.so")
    (root / "lib" / "folder").symlink_to("rustlib")
    toolchain = built(folder, root / "bin")

    toolchain.provide(["cargo"])

    (carried,) = folder.glob("rust-*")
    assert (carried / "lib" / "librustc_driver.so").samefile(library)
    found = {name: (carried / name).stat() for name in modes}
    assert {name: stat.S_IMODE(status.st_mode) for name, status in found.items()} == {
        "lib/closed": 0o644,
        "lib/written": 0o644,
        "bin/rustc": 0o755,
        "bin/cargo": 0o755,
    }
    assert not any(found[name].st_ino == (root / name).stat().st_ino for name in modes)
    assert [(root / name).stat().st_mode & 0o7777 for name in modes] == list(modes.values()), (
        "the host's stay as they are"
    )
    assert [(carried / "lib" / name).readlink().as_posix() for name in ("absolute", "relative", "folder")] == [
        "librustc_driver.so",
        "librustc_driver.so",
        "rustlib",
    ]
    assert all(path.stat().st_mode & 0o777 == 0o755 for path in (carried, *carried.rglob("*")) if path.is_dir())


@pytest.mark.parametrize("sign", [".ssh", ".profile", ".bashrc", ".config"])
@pytest.mark.needs("root")
def test_a_home_is_never_carried_whatever_tool_lies_in_it(folder: Path, home: Path, sign: str) -> None:
    rust(home)
    (home / sign).mkdir()

    toolchain = built(folder, home / "bin")

    assert toolchain.missing(["cargo"]) == ["cargo"]
    assert "other users cannot enter" in toolchain.advice(["cargo"])


@pytest.mark.needs("root")
def test_a_program_that_is_one_file_is_carried_alone(folder: Path, home: Path) -> None:
    (tool(home / "bin", "deno", "bun") / "secret").write_text("of the home")
    (home / ".ssh").mkdir()
    toolchain = built(folder, home / "bin")

    toolchain.provide(["deno"])

    assert run(toolchain, "deno", "moo", user=NOBODY) == "moo"
    (carried,) = folder.glob("deno-*")
    assert [path.name for path in carried.iterdir()] == ["deno"]
    assert bundles(folder) == ["deno"], "only what was wanted"


@pytest.mark.needs("root")
def test_a_tool_that_needs_its_place_is_not_carried(folder: Path, home: Path) -> None:
    toolchain = built(folder, tool(home / "bin", "ruby", "php", "git", "go", "java"))

    assert toolchain.missing(["ruby", "php", "git", "go", "java"]) == ["ruby", "php", "git", "go", "java"]
    assert "go is in a folder that other users cannot enter" in toolchain.advice(["go"])


@pytest.mark.needs("root")
def test_go_java_and_dotnet_are_carried_with_their_folders(folder: Path, home: Path) -> None:
    for name in ("go/src/runtime", "go/pkg/tool", "jdk/lib", "dotnet/sdk/9.0.100", "dotnet/secret"):
        (home / name).mkdir(parents=True)
    (home / "jdk" / "lib" / "modules").write_text("classes")
    (home / "dotnet" / "sdk" / "9.0.100" / "dotnet.dll").write_text("the sdk")
    (home / "dotnet" / "secret" / "file").write_text("no part of it")
    tool(home / "go" / "bin", "go")
    tool(home / "jdk" / "bin", "java", "javac")
    tool(home / "dotnet", "dotnet")
    toolchain = built(folder, home / "go" / "bin", home / "jdk" / "bin", home / "dotnet")

    toolchain.provide(["go", "java", "javac", "dotnet"])

    assert bundles(folder) == ["dotnet", "go", "java"]
    for name in ("go", "java", "javac", "dotnet"):
        assert run(toolchain, name, "moo", user=NOBODY) == "moo"
    (carried,) = folder.glob("dotnet-*")
    assert sorted(path.name for path in carried.iterdir()) == ["dotnet", "sdk"]


# -- once, and whole


@pytest.mark.needs("root")
def test_a_new_version_is_carried_anew_and_the_old_one_goes_at_the_next_start(folder: Path, home: Path) -> None:
    host = tool(home / "bin", "deno")
    built(folder, host).provide(["deno"])
    (old,) = folder.glob("deno-*")
    built(folder, host).provide(["deno"])
    assert list(folder.glob("deno-*")) == [old]

    shutil.copyfile("/bin/true", host / "new")
    (host / "new").chmod(0o755)
    (host / "new").replace(host / "deno")
    (folder / "rust-0123456789ab.part").mkdir()
    (folder / "mine").mkdir()
    toolchain = built(folder, host)
    toolchain.provide(["deno"])

    (new,) = folder.glob("deno-*")
    assert new != old
    assert run(toolchain, "deno", "moo", user=NOBODY) == ""
    assert bundles(folder) == ["deno", "mine"]


@pytest.mark.needs("root")
def test_several_who_want_the_same_get_one_copy(folder: Path, home: Path) -> None:
    root = rust(home / "rust")
    for number in range(300):
        (root / "lib" / f"lib{number}.rlib").write_text("x")
        (root / "lib" / f"lib{number}.rlib").chmod(0o600)  # is copied, which takes its time
    toolchain = built(folder, root / "bin")
    files: list[int] = []
    together = threading.Barrier(4, timeout=TIMEOUT_S)

    def want() -> None:
        together.wait()
        toolchain.provide(["cargo"])
        files.append(len(list((Path(toolchain.tools["cargo"] or "").resolve().parents[1] / "lib").iterdir())))

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)

    assert files == [302] * 4
    assert bundles(folder) == ["rust"]


@pytest.mark.needs("root")
def test_who_gives_up_leaves_nothing_behind_and_keeps_nobody_waiting(folder: Path, home: Path) -> None:
    root = rust(home / "rust")
    toolchain = built(folder, root / "bin")

    class GivenUp(Exception):
        pass

    def give_up() -> None:
        raise GivenUp

    with pytest.raises(GivenUp):
        toolchain.provide(["cargo"], give_up)
    assert bundles(folder) == []

    toolchain.provide(["cargo"])
    assert bundles(folder) == ["rust"]


@pytest.mark.needs("root")
def test_a_toolchain_that_went_away_fails_the_build_with_a_reason(folder: Path, home: Path) -> None:
    root = rust(home / "rust")
    toolchain = built(folder, root / "bin")
    shutil.rmtree(root / "bin")

    with pytest.raises(BuildFailed, match="host's rust could not be made readable for instances: No such file"):
        toolchain.provide(["cargo"])
    assert bundles(folder) == []


def test_names_that_are_no_tools_are_passed_over() -> None:
    Toolchain(path="/bin", tools={"python": "/usr/bin/python3"}).provide(["python", "cow"])


@pytest.mark.needs("root")
def test_a_full_or_closed_disk_is_the_builds_failure(folder: Path, home: Path) -> None:
    root = rust(home / "rust")
    toolchain = built(folder, root / "bin")
    shutil.rmtree(folder)
    folder.write_text("a file where the folder was")

    with pytest.raises(BuildFailed, match="rust could not be made readable for instances: "):
        toolchain.provide(["cargo"])
