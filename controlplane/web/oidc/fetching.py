"""Keep an issuer's keys current, in the background: no request ever waits for the issuer."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx
import msgspec
import trio

from controlplane.core.rawjson import UNDECODABLE
from controlplane.core.urls import is_loopback_url, is_safe_url
from controlplane.web.oidc.keys import DOCUMENT_MAX_BYTES, BadKeys, KeySet, read_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.web.oidc.issuer import Issuer

REFRESH_S = 600.0
"""A key that the issuer has withdrawn is refused at the latest after this."""
MIN_INTERVAL_S = 30.0
"""Tokens with unknown keys cause one look at the issuer in this time, however many they are; so do failures."""
FETCH_S = 10.0
"""For one look: metadata and keys."""
METADATA_PATH = "/.well-known/openid-configuration"
HEADERS = {"accept": "application/json", "accept-encoding": "identity"}
"""Nothing is unpacked, so nothing can blow up."""


class _Metadata(msgspec.Struct):
    """What counts of an issuer's metadata (OpenID Connect Discovery, section 3)."""

    issuer: str
    jwks_uri: str


async def run(
    issuer: Issuer | None,
    on_change: Callable[[], None],
    *,
    min_interval_s: float = MIN_INTERVAL_S,
    refresh_s: float = REFRESH_S,
) -> None:
    """Service loop; whatever fails stands in the issuer's record and is tried again. Without an issuer it is over at once.

    Args:
        issuer: Whose keys.
        on_change: Called when other keys are in force.
        min_interval_s: Between two looks, whatever asks for one.
        refresh_s: Between two looks that nobody asks for.
    """
    if issuer is None:
        return
    asked = trio.Event()

    def ask() -> None:
        asked.set()

    issuer.on_unknown_key, issuer.on_change = ask, on_change
    while True:
        asked = trio.Event()
        came = await refresh(issuer)
        await trio.sleep(min_interval_s)
        if came:
            with trio.move_on_after(refresh_s - min_interval_s):
                await asked.wait()


async def refresh(issuer: Issuer) -> bool:
    """Read the keys anew; False: that failed, and those known stay in force."""
    try:
        with trio.fail_after(FETCH_S):
            keys = await _fetch(issuer)
    except trio.TooSlowError:
        issuer.failed(f"no answer within {FETCH_S:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
        issuer.failed(f"{type(error).__name__}: {error}")
    except BadKeys as error:
        issuer.failed(str(error))
    else:
        issuer.take(keys)
        return True
    return False


async def _fetch(issuer: Issuer) -> KeySet:
    # A proxy of the host's is for what is elsewhere. Redirects would leave the address that the operator vouches for.
    async with httpx.AsyncClient(trust_env=not is_loopback_url(issuer.url), timeout=FETCH_S) as client:
        url = issuer.jwks_url or await _find(client, issuer.url)
        return read_keys(await _get(client, url), issuer.algorithms)


async def _find(client: httpx.AsyncClient, issuer_url: str) -> str:
    """Where the keys are, by the issuer's metadata, which must be its own (section 4.3)."""
    document = await _get(client, issuer_url.rstrip("/") + METADATA_PATH)
    try:
        metadata = msgspec.json.decode(document, type=_Metadata)
    except UNDECODABLE:
        raise BadKeys("its metadata are none") from None
    if metadata.issuer != issuer_url:
        raise BadKeys(f"its metadata are of another issuer, {metadata.issuer!r:.200}")
    if not may_name(issuer_url, metadata.jwks_uri):
        raise BadKeys("its metadata name an address for its keys that is not https")
    return metadata.jwks_uri


def may_name(issuer_url: str, jwks_uri: str) -> bool:
    """Whether keys may be read where an issuer's metadata say: only one on this host may lead to a port of this host."""
    return is_safe_url(jwks_uri) and (is_loopback_url(issuer_url) or not is_loopback_url(jwks_uri))


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    body = bytearray()
    async with client.stream("GET", url, headers=HEADERS) as response:
        if response.status_code != httpx.codes.OK:
            raise BadKeys(f"{url} answers with {response.status_code}")
        with trio.CancelScope() as rest:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > DOCUMENT_MAX_BYTES:
                    # raised below: httpx's nested generators are closed only by what comes from the innermost of them
                    rest.cancel()
    if len(body) > DOCUMENT_MAX_BYTES:
        raise BadKeys(f"{url} answers with more than {DOCUMENT_MAX_BYTES // 1024} KiB")
    return bytes(body)
