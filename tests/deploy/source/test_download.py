"""An archive's bytes from a real https server: what arrives, what is refused, and that nothing is left of a failure."""

from __future__ import annotations

import gzip
import hashlib
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from controlplane.deploy.source import download as module
from controlplane.deploy.source.address import Egress
from controlplane.deploy.source.download import MAX_REDIRECTS, Download, download
from controlplane.errors import SourceRejected
from tests.deploy.source.https_server import Authority, Handler, Names, Server, content, proxying, redirect, serving

BODY = bytes(range(256)) * 12_000
"""3 MB: several pieces, and several writes."""
Fetch = Callable[..., Any]


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def fetch(authority: Authority, into: Path) -> Fetch:
    async def get(url: str, *, egress: Egress | None = None, **options: Any) -> Download:
        with trio.fail_after(30):
            return await download(
                url,
                into,
                limit_bytes=options.pop("limit_bytes", 10**7),
                timeout_s=options.pop("timeout_s", 20),
                egress=egress or Egress(allow_private=True, resolver=Names()),
                ssl_context=options.pop("ssl_context", ssl.create_default_context(cafile=authority.ca)),
            )

    return get


async def test_the_bytes_arrive_with_their_digest(server: Server, fetch: Fetch, into: Path) -> None:
    server.pages["x.tar"] = content(BODY)
    got = await fetch(server.url("x.tar?sig=1"))
    assert got == Download(
        sha256=hashlib.sha256(BODY).hexdigest(), size_bytes=len(BODY), final_url=server.url("x.tar?sig=1")
    )
    assert into.read_bytes() == BODY
    assert into.stat().st_mode & 0o777 == 0o600


async def test_nothing_of_corral_goes_along(server: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # this process's own: the egress alone counts
    server.pages["x.tar"] = content(BODY, set_cookie="a=b", content_type="text/html")
    await fetch(server.url("x.tar"))
    (path, headers) = server.asked[0]
    assert path == "/x.tar"
    assert headers.pop("host") == f"git.test:{server.port}"
    assert headers.pop("accept-encoding") == "identity"
    assert set(headers) <= {"accept", "user-agent", "connection"}


async def test_an_encoded_answer_is_taken_as_it_is_and_not_blown_up(server: Server, fetch: Fetch, into: Path) -> None:
    packed = gzip.compress(bytes(50_000_000))
    server.pages["x.tar.gz"] = content(packed, content_encoding="gzip")
    assert (await fetch(server.url("x.tar.gz"))).size_bytes == len(packed)
    assert into.read_bytes() == packed


async def test_redirects_are_followed_and_their_cookies_forgotten(server: Server, fetch: Fetch) -> None:
    server.pages["a"] = content(b"", 301, location="/b/../b?x=1#frag", set_cookie="a=b")
    server.pages["b"] = redirect(server.url("c"), 307)
    server.pages["c"] = content(BODY)
    assert (await fetch(server.url("a"))).final_url == server.url("c")
    assert [path for path, _ in server.asked] == ["/a", "/b?x=1", "/c"]
    assert all("cookie" not in headers for _, headers in server.asked)


async def test_redirects_have_an_end(server: Server, fetch: Fetch, into: Path) -> None:
    server.pages["a"] = redirect("/a")
    with pytest.raises(SourceRejected, match=f"more than {MAX_REDIRECTS} times"):
        await fetch(server.url("a"))
    assert len(server.asked) == MAX_REDIRECTS + 1
    assert not into.exists()


@pytest.mark.parametrize(
    "to",
    ["http://git.test/x", "file:///etc/passwd", "ftp://git.test/x", "https://u:p@git.test/x", "//", "https://[::1/x"],
)
async def test_a_redirect_to_another_scheme_or_user_is_refused(
    server: Server, fetch: Fetch, into: Path, to: str
) -> None:
    server.pages["a"] = redirect(to)
    with pytest.raises(SourceRejected):
        await fetch(server.url("a"))
    assert not into.exists()


async def test_a_redirect_without_a_place_is_refused(server: Server, fetch: Fetch) -> None:
    server.pages["a"] = content(b"", 302)
    with pytest.raises(SourceRejected):
        await fetch(server.url("a"))


async def test_a_redirect_to_a_private_address_is_refused_and_not_knocked_at(
    server: Server, fetch: Fetch, authority: Authority, tmp_path: Path
) -> None:
    with serving(authority, tmp_path) as inner:
        server.pages["a"] = redirect(f"https://0.0.0.0:{inner.port}/x")  # refused whatever the operator allows
        with pytest.raises(SourceRejected, match=r"0\.0\.0\.0"):
            await fetch(
                server.url("a"),
                egress=Egress(allow_private=True, resolver=Names([("127.0.0.1",), ("0.0.0.0",)])),
            )
        assert inner.connections == 0
    assert len(server.asked) == 1


@pytest.mark.parametrize("host", ["git.test", "127.0.0.1"])
async def test_this_host_is_refused_unless_allowed(server: Server, fetch: Fetch, into: Path, host: str) -> None:
    with pytest.raises(SourceRejected, match="may be fetched from"):
        await fetch(f"https://{host}:{server.port}/x", egress=Egress(resolver=Names()))
    assert server.connections == 0
    assert not into.exists()


async def test_the_address_that_was_judged_is_the_one_connected_to(server: Server, fetch: Fetch) -> None:
    """R67: a name that leads elsewhere when it is asked again."""
    server.pages["x"] = content(BODY)
    names = Names([("127.0.0.1",), ("127.0.0.2",)])
    await fetch(server.url("x"), egress=Egress(allow_private=True, resolver=names))
    assert names.asked == ["git.test"]


async def test_the_next_address_is_tried_where_one_does_not_answer(server: Server, fetch: Fetch) -> None:
    server.pages["x"] = content(BODY)
    names = Names([("127.0.0.9", "127.0.0.1")])
    assert (await fetch(server.url("x"), egress=Egress(allow_private=True, resolver=names))).size_bytes == len(BODY)


async def test_a_numeric_host_is_checked_against_its_certificate_too(server: Server, fetch: Fetch, into: Path) -> None:
    server.pages["x"] = content(BODY)
    await fetch(f"https://127.0.0.1:{server.port}/x")
    into.unlink()
    with pytest.raises(SourceRejected, match="certificate"):
        await fetch(f"https://127.0.0.2:{server.port}/x", egress=Egress(allow_private=True, resolver=Names()))


async def test_a_certificate_of_another_name_is_refused(server: Server, fetch: Fetch) -> None:
    server.pages["x"] = content(BODY)
    with pytest.raises(SourceRejected, match=r"certificate of other\.test"):
        await fetch(f"https://other.test:{server.port}/x")
    assert server.asked == []


async def test_a_certificate_of_an_unknown_authority_is_refused(server: Server, fetch: Fetch) -> None:
    with pytest.raises(SourceRejected, match="certificate") as refused:
        await fetch(server.url("x"), ssl_context=None)
    assert "SSL_CERT_FILE" in (refused.value.hint or "")


async def test_the_authority_in_ssl_cert_file_is_trusted(
    server: Server, fetch: Fetch, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    server.pages["x"] = content(BODY)
    assert (await fetch(server.url("x"), ssl_context=None)).size_bytes == len(BODY)


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "nothing at"), (410, "nothing at"), (401, "not public"), (403, "not public"), (500, "500")],
)
async def test_an_answer_that_is_no_success_is_told(
    server: Server, fetch: Fetch, into: Path, status: int, said: str
) -> None:
    server.pages["x"] = content(b"no", status)
    with pytest.raises(SourceRejected, match=said) as refused:
        await fetch(server.url("x?sig=s3cr3t"))
    assert "s3cr3t" not in refused.value.detail
    assert not into.exists()


async def test_a_declared_size_that_is_too_large_is_not_read(server: Server, fetch: Fetch, into: Path) -> None:
    server.pages["x"] = content(BODY)
    with pytest.raises(SourceRejected, match="larger than 1,000 bytes"):
        await fetch(server.url("x"), limit_bytes=1000)
    assert not into.exists()


async def test_a_size_that_is_not_declared_is_counted(server: Server, fetch: Fetch, into: Path) -> None:
    sent = 0

    def endless(handler: Handler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.send_header("connection", "close")
        handler.end_headers()
        with suppress(OSError):
            while not server.ended.is_set():
                handler.wfile.write(bytes(65536))
                sent += 65536

    server.pages["x"] = endless
    with pytest.raises(SourceRejected, match="larger than"):
        await fetch(server.url("x"), limit_bytes=2_000_000)
    assert not into.exists()
    assert sent < 50_000_000


async def test_an_answer_that_breaks_off_is_refused(server: Server, fetch: Fetch, into: Path) -> None:
    server.pages["x"] = broken_off
    with pytest.raises(SourceRejected, match="broke off"):
        await fetch(server.url("x"))
    assert not into.exists()


def broken_off(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "10")
    handler.end_headers()
    handler.wfile.write(b"half")
    handler.close_connection = True


async def test_what_does_not_speak_http_is_refused(server: Server, fetch: Fetch) -> None:
    def rubbish(handler: Handler) -> None:
        handler.wfile.write(b"220 smtp.example ESMTP\r\n")
        handler.close_connection = True

    server.pages["x"] = rubbish
    with pytest.raises(SourceRejected, match="does not speak HTTP"):
        await fetch(server.url("x"))


async def test_a_server_that_drips_is_given_up(server: Server, fetch: Fetch, into: Path) -> None:
    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "1000000")
        handler.end_headers()
        with suppress(OSError):
            while not server.ended.wait(0.05):
                handler.wfile.write(b"x")

    server.pages["x"] = drip
    began = time.monotonic()
    with pytest.raises(SourceRejected, match="took more than 1 s"):
        await fetch(server.url("x"), timeout_s=1)
    assert time.monotonic() - began < 10
    assert not into.exists()


async def test_a_server_that_says_nothing_is_given_up(
    server: Server, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_LIMIT_S", 0.3)

    def silent(handler: Handler) -> None:
        server.ended.wait(10)

    server.pages["x"] = silent
    with pytest.raises(SourceRejected, match="sent nothing"):
        await fetch(server.url("x"))


async def test_a_host_that_nobody_listens_at_is_refused(fetch: Fetch, into: Path) -> None:
    with pytest.raises(SourceRejected, match="cannot be connected to"):
        await fetch("https://git.test:1024/x")
    assert not into.exists()


async def test_a_cancelled_download_leaves_nothing(server: Server, fetch: Fetch, into: Path) -> None:
    begun = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def hang(handler: Handler) -> None:
        trio.from_thread.run_sync(begun.set, trio_token=token)
        server.ended.wait(10)

    server.pages["x"] = hang
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch, server.url("x"))
        with trio.fail_after(10):
            await begun.wait()
        nursery.cancel_scope.cancel()
    assert not into.exists()


async def test_a_file_that_is_there_is_not_written_over(server: Server, fetch: Fetch, into: Path) -> None:
    into.write_text("mine")
    with pytest.raises(FileExistsError):
        await fetch(server.url("x"))
    assert into.read_text() == "mine"


async def test_an_address_that_is_not_taken_is_refused_in_its_own_words(fetch: Fetch, into: Path) -> None:
    with pytest.raises(SourceRejected, match="http"):
        await fetch("http://git.test/x")
    assert not into.exists()


async def test_the_operators_proxy_leads_there_and_does_the_looking_up(server: Server, fetch: Fetch) -> None:
    server.pages["x"] = content(BODY)
    names = Names()
    with proxying(server.port) as (port, asked):
        egress = Egress(environ={"HTTPS_PROXY": f"http://127.0.0.1:{port}"}, resolver=names)
        assert (await fetch(server.url("x"), egress=egress)).size_bytes == len(BODY)
    assert asked == [f"git.test:{server.port}"]
    assert names.asked == []


async def test_a_proxy_that_is_away_is_told(fetch: Fetch) -> None:
    egress = Egress(environ={"HTTPS_PROXY": "http://127.0.0.1:1"}, resolver=Names())
    with pytest.raises(SourceRejected):
        await fetch("https://git.test/x", egress=egress)
