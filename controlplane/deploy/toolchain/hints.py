"""How to get a tool on this host, in one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

OS_RELEASE = Path("/etc/os-release")
INSTALL = {"debian": "apt install", "fedora": "dnf install", "alpine": "apk add"}
PACKAGES: dict[str, tuple[str, str, str]] = {
    "python": ("python3", "python3", "python3"),
    "node": ("nodejs", "nodejs", "nodejs"),
    "npm": ("npm", "nodejs-npm", "npm"),
    "npx": ("npm", "nodejs-npm", "npm"),
    "go": ("golang-go", "golang", "go"),
    "cargo": ("cargo", "cargo", "cargo"),
    "rustc": ("rustc", "rust", "rust"),
    "cc": ("build-essential", "gcc", "build-base"),
    "gcc": ("build-essential", "gcc", "build-base"),
    "ruby": ("ruby", "ruby", "ruby"),
    "gem": ("ruby", "rubygems", "ruby"),
    "bundle": ("ruby-bundler", "rubygem-bundler", "ruby-bundler"),
    "php": ("php-cli", "php-cli", "php"),
    "composer": ("composer", "composer", "composer"),
    "java": ("default-jdk-headless", "java-21-openjdk-devel", "openjdk21-jdk"),
    "javac": ("default-jdk-headless", "java-21-openjdk-devel", "openjdk21-jdk"),
    "mvn": ("maven", "maven", "maven"),
    "dotnet": ("", "dotnet-sdk-9.0", "dotnet9-sdk"),
    "deno": ("", "", "deno"),
    "git": ("git", "git", "git"),
}
"""Packages of Debian, Fedora and Alpine; empty: it has none."""
ELSEWHERE = {
    "node": "Corral's extra `node` brings it too (`corral up` installs it)",
    "uv": "Corral brings it: pip install uv",
    "uvx": "Corral brings it: pip install uv",
    "go": "a newer one from https://go.dev/dl goes into /usr/local/go",
    "cargo": "a newer one comes with https://rustup.rs",
    "deno": "npm install -g deno",
    "bun": "npm install -g bun",
    "bunx": "npm install -g bun",
    "dotnet": "the SDK from https://dot.net/download goes into /usr/share/dotnet, with a link in /usr/bin",
}
"""Other ways, where the system's is missing or often too old."""


def how_to_get(tools: Iterable[str], *, os_release: Path = OS_RELEASE) -> str:
    """How to install tools on this host; empty if nothing is known of them."""
    wanted = list(tools)
    family = _family(os_release)
    ways = []
    if family is not None:
        column = list(INSTALL).index(family)
        packages = dict.fromkeys(row[column] for tool in wanted if (row := PACKAGES.get(tool)) and row[column])
        if packages:
            ways.append(f"{INSTALL[family]} {' '.join(packages)}")
    ways += dict.fromkeys(ELSEWHERE[tool] for tool in wanted if tool in ELSEWHERE)
    if not ways and wanted:
        ways.append(f"install {', '.join(wanted)}")
    return "; ".join(ways)


def _family(os_release: Path) -> str | None:
    """Whose packages the system takes."""
    try:
        pairs = dict(line.split("=", 1) for line in os_release.read_text().splitlines() if "=" in line)
    except (OSError, UnicodeDecodeError):
        return None
    names = f"{pairs.get('ID', '')} {pairs.get('ID_LIKE', '')}".replace('"', " ").lower().split()
    return next(({"rhel": "fedora"}.get(name, name) for name in names if name in {*INSTALL, "rhel"}), None)
