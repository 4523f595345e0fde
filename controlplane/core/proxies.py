"""Which proxy leads to a host, by the variables that name one."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping


def variable(environ: Mapping[str, str], *names: str) -> str | None:
    """The first of these variables that says something."""
    return next((value for name in names if (value := environ.get(name))), None)


def proxy_to(environ: Mapping[str, str], host: str, port: int) -> str | None:
    """The URL of the proxy that leads to a host, if any: HTTPS_PROXY or ALL_PROXY, but for NO_PROXY."""
    proxy = variable(environ, "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    exempt = variable(environ, "no_proxy", "NO_PROXY")
    if proxy is None or (exempt and urllib.request.proxy_bypass(f"{host}:{port}", {"no": exempt})):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
