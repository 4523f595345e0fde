"""Where a control plane is found when no context of the user's is in force, and with which token.

`CORRAL_URL` and `CORRAL_TOKEN` come first, then the credentials file that `corral up` keeps in `CORRAL_HOME`, then the
one in the default home. A token from the file goes to the file's own server only: naming another server in
`CORRAL_URL` must never send it the local administrator's token.
"""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import field, frozen

from controlplane.cli.exits import CommandFailed, Exit, Problem, program

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKOUT = Path(__file__).resolve().parents[2]
DEFAULT_URL = "http://127.0.0.1:8000"
LOCAL = "local"
"""The context that needs no keeping: what `find_target` finds."""


@frozen
class Target:
    """A server's base URL without a trailing slash, and the token for it; `origin` says where they come from.

    Args:
        url: The base URL.
        token: The token for it, and for no other.
        origin: Where both come from.
        context: The context's name.
        colour: The context's colour; empty without one.
        read_only: Whether nothing may be changed there.
    """

    url: str
    token: str | None = field(repr=False)
    origin: str
    context: str = LOCAL
    colour: str = ""
    read_only: bool = False

    @property
    def is_loopback(self) -> bool:
        return is_loopback(urlsplit(self.url).hostname or "")


def is_loopback(host: str) -> bool:
    """Whether a host name or address stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def default_home() -> Path:
    """Return where `corral up` keeps its data when nothing else is said (as `controlplane.config` has it)."""
    return Path("/var/lib/corral") if os.geteuid() == 0 else Path.home() / ".local/share/corral"


def home_of(environ: Mapping[str, str]) -> Path:
    """Return the data folder in force: the environment's, the one that the checkout's `.env` names, or the default.

    A `.env` of any other folder is not read: a stranger's project must not choose where our tokens and secrets go.
    """
    named = environ.get("CORRAL_HOME", "").strip() or _home_in_file(CHECKOUT / ".env")
    return Path(named).expanduser() if named else default_home()


def _home_in_file(settings: Path) -> str:
    if not settings.is_file():
        return ""
    from dotenv import dotenv_values  # noqa: PLC0415  (only a checkout with settings of its own pays for it)

    return (dotenv_values(settings).get("CORRAL_HOME") or "").strip()


def credentials_path(environ: Mapping[str, str]) -> Path:
    """Return where the credentials file is looked for."""
    return home_of(environ) / "credentials"


def _unusable(path: Path, reason: str, hint: str) -> CommandFailed:
    return CommandFailed(
        Problem(title="The credentials cannot be used", detail=f"{path}: {reason}", hint=hint), Exit.USAGE
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        hint = "Run this as the user that runs the control plane, or set CORRAL_URL and CORRAL_TOKEN."
        raise _unusable(path, "not readable by you", hint) from error
    except (OSError, ValueError) as error:
        raise _unusable(path, str(error), f"Remove it; `{program()} up` writes a new one.") from error
    if not isinstance(document, dict) or not isinstance(document.get("url"), str):
        raise _unusable(path, "not the JSON that was expected", f"Remove it; `{program()} up` writes a new one.")
    return document


def _place(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    return parts.scheme, "loopback" if is_loopback(host) else host, parts.port


def checked(url: str) -> str:
    """Return the base URL without its trailing slash.

    Raises:
        CommandFailed: it is no http or https URL.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        problem = Problem(title="CORRAL_URL cannot be used", detail=f"{url!r} is not an http:// or https:// URL")
        raise CommandFailed(problem, Exit.USAGE)
    return url.rstrip("/")


def find_target(environ: Mapping[str, str]) -> Target:
    """Find the server and the token of the context `local`; `choosing` says when that is the one in force.

    Raises:
        CommandFailed: the variables or the credentials file cannot be used.
    """
    url, token = environ.get("CORRAL_URL", "").strip(), environ.get("CORRAL_TOKEN", "").strip()
    if url and token:
        return Target(checked(url), token, "CORRAL_URL and CORRAL_TOKEN")
    path = credentials_path(environ)
    kept = _read(path)
    if kept is None:
        return Target(checked(url or DEFAULT_URL), token or None, "CORRAL_URL" if url else "no credentials file")
    kept_url, kept_token = checked(kept["url"]), str(kept.get("token") or "") or None
    if url and _place(url) != _place(kept_url):
        return Target(checked(url), token or None, "CORRAL_URL")
    return Target(checked(url or kept_url), token or kept_token, str(path))
