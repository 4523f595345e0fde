"""The environment that git is run in to fetch from a stranger: all configuration that it has. Pure.

Nothing is read from the machine, from a user or from a repository: no hooks, filters, helpers, prompts or redirects, and
one transport. Where a name was judged, git is told the address to connect to (http.curloptResolve).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controlplane.deploy.source.address import Route
    from controlplane.deploy.source.giturl import Repository
    from runtimes.recipe import Env

SLOW_BYTES_PER_S, SLOW_FOR_S = 1000, 30
"""Below this for so long, git itself gives up; the time for the whole bounds the rest."""

_CONFIG = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "false"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.autocrlf", "false"),
    ("core.quotePath", "true"),
    ("credential.helper", ""),
    ("protocol.allow", "never"),
    ("http.followRedirects", "false"),
    ("http.lowSpeedLimit", str(SLOW_BYTES_PER_S)),
    ("http.lowSpeedTime", str(SLOW_FOR_S)),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("transfer.bundleURI", "false"),
    ("transfer.fsckObjects", "true"),
    # slips of old tools, which many a repository of good name has in its first years
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.unpackLimit", "1"),  # always one pack: one file, which the limit on files bounds
    ("fetch.writeCommitGraph", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("init.defaultBranch", "main"),
    ("advice.detachedHead", "false"),
)


def environment(repository: Repository, route: Route, *, ca_file: str | None = None) -> Env:
    """All that git gets besides PATH and HOME, for every step. Pure."""
    is_ssh = repository.scheme == "ssh"
    config = [*_CONFIG, (f"protocol.{repository.scheme}.allow", "always")]
    if route.addresses and not is_ssh and not _is_numeric(repository.host):
        # git connects there, and checks the certificate against the name
        places = ",".join(f"[{address}]" if ":" in address else address for address in route.addresses)
        config.append(("http.curloptResolve", f"{repository.host}:{repository.port}:{places}"))
    proxy = route.proxy or ""
    variables = {
        "GIT_DIR": ".git",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "false",
        "SSH_ASKPASS": "false",
        "GIT_ALLOW_PROTOCOL": repository.scheme,
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_PAGER": "cat",
        "GIT_EDITOR": "false",
        "LC_ALL": "C",  # `explain` reads git's words
        # an empty one overrides the operator's: what was judged is connected to, and nobody else is asked
        **dict.fromkeys(("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY"), proxy),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
        "GIT_CONFIG_COUNT": str(len(config)),
        **{f"GIT_CONFIG_KEY_{n}": key for n, (key, _) in enumerate(config)},
        **{f"GIT_CONFIG_VALUE_{n}": value for n, (_, value) in enumerate(config)},
    }
    if ca_file is not None:
        variables["GIT_SSL_CAINFO"] = ca_file
    if is_ssh:
        variables |= {"GIT_SSH_COMMAND": _ssh(repository, route), "GIT_SSH_VARIANT": "ssh"}
    return tuple(variables.items())


def _ssh(repository: Repository, route: Route) -> str:
    """Host keys are the host's own (/etc/ssh/ssh_known_hosts). Every word is of letters, digits and `.:-_/=`."""
    options = {
        "BatchMode": "yes",
        "HostName": route.addresses[0],
        "HostKeyAlias": repository.host,
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": "10",
        "ProxyCommand": "none",
        "ForwardAgent": "no",
        "PermitLocalCommand": "no",
    }
    return " ".join(("ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items())))


def _is_numeric(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()
