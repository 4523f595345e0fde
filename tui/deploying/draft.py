"""What was typed into the deploy form, and the request that it means. Pure."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath
from typing import Any

from attrs import define, field, frozen

from controlplane.wire.deploy import ENV_NAME_PATTERN
from tui.deploying.fields import FIELDS, LIMITS, Way, fields_of

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
NAME_EXPECTS = "1 to 63 of a-z 0-9 -, with a letter or digit at both ends"
_ENV_NAME = re.compile(ENV_NAME_PATTERN)
_NOT_IN_NAMES = re.compile(r"[^a-z0-9-]+")
_VERSION = re.compile(r"(?<=.)@[^/@]*$")
_ENDINGS = re.compile(r"\.(git|zip|tar(\.\w+)?|tgz|py|js|mjs|ts|go|rs|rb|php|jar)$")
_SECRET_IN_URL = re.compile(r"(?<=//)[^/@\s]+@")


@frozen
class Wrong:
    """A field that cannot be sent as it is; an empty `field` means the form as a whole."""

    field: str
    message: str


@define
class Draft:
    """The form. `texts` is by field; `variables` are pairs whose values nobody sees again."""

    way: Way = "command"
    texts: dict[str, str] = field(factory=dict)
    variables: list[tuple[str, str]] = field(factory=list, repr=False)
    more: bool = False
    failed: tuple[str, str] | None = None
    """Id and name of the instance that an attempt left behind: it is what is tried again."""

    def text(self, key: str) -> str:
        return self.texts.get(key, "").strip()

    @property
    def name(self) -> str:
        """The name as the server keeps it: what was typed, or what the source suggests."""
        return folded(self.text("name")) or suggested_name(self)


def folded(name: str) -> str:
    """A name as the server keeps it: lower case, `_` and `.` become `-`."""
    return name.lower().replace("_", "-").replace(".", "-")


def suggested_name(draft: Draft) -> str:
    """A name made of what is deployed; empty where nothing suggests one."""
    text = draft.text({"command": "command", "git": "url", "local": "path"}.get(draft.way, ""))
    if draft.way == "command":
        words = [word for word in _words(text)[1:] if not word.startswith("-")] or _words(text)
        text = _VERSION.sub("", words[-1]) if words else ""
    last = PurePosixPath(text.partition("#")[0].rstrip("/")).name.lower()
    return _NOT_IN_NAMES.sub("-", _ENDINGS.sub("", last)).strip("-")[:63].strip("-")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def request_of(draft: Draft) -> tuple[dict[str, Any], list[Wrong]]:
    """Return the deploy request, without what is read from the disk, and every field that is wrong."""
    wrong: list[Wrong] = []
    document: dict[str, Any] = {"name": draft.name}
    if not NAME.fullmatch(draft.name):
        wrong.append(Wrong("name", NAME_EXPECTS if draft.name else "how is it to be called?"))
    document |= _source(draft, wrong)
    variables = _variables(draft, wrong)
    if draft.way == "command":
        document["mcp_config"] |= {"env": variables} if variables else {}
    elif variables:
        document["environment_vars"] = variables
    document |= _settings(draft, wrong)
    return document, wrong


def _source(draft: Draft, wrong: list[Wrong]) -> dict[str, Any]:
    if draft.way == "command":
        return _command(draft, wrong)
    key = "url" if draft.way == "git" else "path"
    if not draft.text(key):
        wrong.append(Wrong(key, "what is to be deployed?"))
    about = {
        "source_subdir": draft.text("subdir"),
        "language": draft.text("language").lower(),
        "entry_point": draft.text("entry"),
        "dependencies": draft.text("dependencies").split(),
        "build_command": draft.text("build"),
    }
    if draft.way == "git":
        about |= {"source_type": "git", "source_url": draft.text("url"), "source_ref": draft.text("ref")}
    return {name: value for name, value in about.items() if value}


def _command(draft: Draft, wrong: list[Wrong]) -> dict[str, Any]:
    try:
        words = shlex.split(draft.text("command"))
    except ValueError as error:
        wrong.append(Wrong("command", f"as a shell would read it: {str(error).lower()}"))
        words = []
    else:
        if not words:
            wrong.append(Wrong("command", "what is to be run?"))
    config: dict[str, Any] = {"command": words[0] if words else "", "args": words[1:]}
    if draft.text("cwd"):
        config["cwd"] = draft.text("cwd")
    return {"source_type": "mcp_config", "mcp_config": config}


def _variables(draft: Draft, wrong: list[Wrong]) -> dict[str, str]:
    variables: dict[str, str] = {}
    for name, value in draft.variables:
        if not name.strip():
            if value:
                wrong.append(Wrong("env", "a value has no name"))
            continue
        if not _ENV_NAME.fullmatch(name.strip()):
            wrong.append(Wrong("env", f"{name.strip()}: a letter or _, then letters, digits or _"))
        variables[name.strip()] = value
    return variables


def _settings(draft: Draft, wrong: list[Wrong]) -> dict[str, Any]:
    labels: dict[str, str] = {}
    for word in draft.text("labels").replace(",", " ").split():
        key, found, value = word.partition("=")
        if not key or not found:
            wrong.append(Wrong("labels", f"{word} is not NAME=VALUE"))
        labels[key] = value
    hosts = draft.text("hosts").replace(",", " ").split()
    network = _chosen(draft, "network")
    if hosts and network != "allow":
        wrong.append(Wrong("hosts", "these go with the network set to allow"))
    restart = _chosen(draft, "restart")
    settings = {
        "labels": labels,
        "limits": _limits(draft, wrong),
        "restart": {"mode": restart} if restart else None,
        "isolation": _chosen(draft, "isolation"),
        "network": {"mode": network} | ({"hosts": hosts} if hosts else {}) if network else None,
        "sessions": _chosen(draft, "sessions"),
    }
    return {name: value for name, value in settings.items() if value}


def _chosen(draft: Draft, key: str) -> str:
    """What was chosen; empty for the server's own default, which need not be said."""
    choices = next(found.choices for found in FIELDS if found.key == key)
    text = draft.text(key)
    return "" if text == choices[0] else text


def _limits(draft: Draft, wrong: list[Wrong]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for key in LIMITS:
        text = draft.text(key)
        if not text:
            continue
        try:
            limits[key] = float(text) if key == "call_timeout_s" else int(text)
        except ValueError:
            wrong.append(Wrong(key, "a number is expected"))
    return limits


_FLAGS = {
    "cwd": "--cwd", "ref": "--ref", "subdir": "--subdir", "language": "--language", "entry": "--entry",
    "build": "--build", "memory_mb": "--memory", "cpu_percent": "--cpu", "restart": "--restart",
    "isolation": "--isolation", "network": "--network", "sessions": "--sessions",
}  # fmt: skip
_LIMITS = {"disk_mb": "disk", "processes": "processes", "call_timeout_s": "call-timeout", "log_kb_s": "log"}
_REPEATED = {"labels": "-l", "dependencies": "-d", "hosts": "--allow-host"}


def command_line(draft: Draft, program: str = "corral") -> str:
    """The same deploy as a shell command. Values of variables are not in it: `-e NAME` takes them from the shell."""
    if draft.way == "servers":
        return f"{program} import FILE"
    said = [field for field in fields_of(draft.way) if draft.text(field.key)]
    words = [program, "deploy", draft.name or "NAME"]
    words += [word for name, _ in draft.variables if name.strip() for word in ("-e", name.strip())]
    for found in said:
        text = _chosen(draft, found.key) if found.choices else draft.text(found.key)
        if found.key in _FLAGS and text:
            words += [_FLAGS[found.key], text]
        elif found.key in _LIMITS:
            words += ["--limit", f"{_LIMITS[found.key]}={text}"]
        elif found.key in _REPEATED:
            words += [word for item in text.replace(",", " ").split() for word in (_REPEATED[found.key], item)]
    if draft.way == "command":
        words += ["--", *(_words(draft.text("command")) or ["COMMAND"])]
    else:
        words.append(_SECRET_IN_URL.sub("…@", draft.text("url" if draft.way == "git" else "path")) or "SOURCE")
    return shlex.join(words)
