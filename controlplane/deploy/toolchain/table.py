"""What is known of each tool: how it says its version, what a script of its name may be, what it must be carried with."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Layout:
    """A folder that a tool works in, so that a tool of a closed home can be carried to where all can read it.

    Args:
        name: Of the folder that it is carried to.
        up: Steps from the program's file up to the root; 0: the file alone.
        has: What a root has; without it, the folder is something else.
        landmark: The file that tells one version from another.
        take: What of the root is carried; a home or a prefix may hold anything besides.
        skip: Patterns of paths below the root that no build and no server needs.
    """

    name: str
    up: int = 2
    has: str = ""
    landmark: str = ""
    take: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


@frozen(kw_only=True)
class Program:
    """One tool.

    Args:
        name: As on PATH.
        ask: Arguments that make it say its version.
        line: The line of its answer that has the version in it.
        interpreter: A script of this name is the tool itself where this runs it; any other is a shim.
        script_has: A script of this name is the tool itself where this is two folders up.
        any_script: Every script of this name will do.
        native: Where an npm package keeps the program, seen from the script that stands for it.
        layout: How it can be carried; None: it runs only where it is.
    """

    name: str
    ask: tuple[str, ...] = ("--version",)
    line: int = 0
    interpreter: str = ""
    script_has: str = ""
    any_script: bool = False
    native: tuple[str, ...] = ()
    layout: Layout | None = None


RUST = Layout(
    name="rust",
    has="lib/rustlib",
    landmark="bin/rustc",
    take=("bin/cargo", "bin/rustc", "bin/rustdoc", "lib"),  # without `share`: most of a toolchain is documentation
    skip=("lib/rustlib/src", "lib/rustlib/etc"),
)
GO = Layout(
    name="go",
    has="src/runtime",
    landmark="bin/go",
    take=("bin/go", "bin/gofmt", "pkg", "src", "lib", "go.env", "VERSION"),
)
JAVA = Layout(
    name="java",
    has="lib/modules",
    landmark="bin/java",
    take=("bin", "conf", "include", "lib", "release"),
    skip=("lib/src.zip",),
)
MAVEN = Layout(name="maven", has="boot", landmark="bin/mvn", take=("bin", "boot", "conf", "lib"))
DOTNET = Layout(
    name="dotnet",
    up=1,
    has="sdk",
    landmark="dotnet",
    take=("dotnet", "host", "library-packs", "metadata", "packs", "sdk", "sdk-manifests", "shared", "templates"),
)
NODE = Layout(name="node", has="lib/node_modules/npm", landmark="bin/node", take=("bin", "lib"))
DENO, BUN, UV, UVX = (Layout(name=name, up=0) for name in ("deno", "bun", "uv", "uvx"))

_DENO_NPM = ("deno", "node_modules/@deno/*/deno", "../@deno/*/deno")
_BUN_NPM = ("../node_modules/@oven/*/bin/bun", "../../@oven/*/bin/bun")

PROGRAMS = (
    Program(name="go", ask=("version",), layout=GO),
    Program(name="cargo", layout=RUST),
    Program(name="rustc", layout=RUST),
    Program(name="deno", native=_DENO_NPM, layout=DENO),
    Program(name="bun", native=_BUN_NPM, layout=BUN),
    Program(name="bunx", native=_BUN_NPM, layout=BUN),
    Program(name="ruby"),
    Program(name="gem", interpreter="ruby"),
    Program(name="bundle", interpreter="ruby"),
    Program(name="php"),
    Program(name="composer", interpreter="php"),
    Program(name="java", layout=JAVA),
    Program(name="javac", layout=JAVA),
    Program(name="mvn", script_has="boot", layout=MAVEN),
    # The newest SDK comes last, and is the one that runs; a host with a runtime alone has none.
    Program(name="dotnet", ask=("--list-sdks",), line=-1, layout=DOTNET),
    Program(name="git"),
    Program(name="gcc", any_script=True),
    Program(name="cc", any_script=True),
)
"""Found by the one rule of `find.py`; python, node and uv have rules of their own there."""

OWN_RULES = tuple(Program(name=name) for name in ("python", "node", "npm", "npx", "uv", "uvx"))
BY_NAME = {program.name: program for program in (*OWN_RULES, *PROGRAMS)}
CARRIED = frozenset(layout.name for layout in (RUST, GO, JAVA, MAVEN, DOTNET, NODE, DENO, BUN, UV, UVX))
"""Names of what may be carried, and so of what may be cleared away."""

SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
USUAL_PLACES = ("/usr/local/go/bin", "~/.cargo/bin", "~/.deno/bin", "~/.bun/bin")
"""Where the makers' own installers put a tool, which a service's PATH seldom has."""
