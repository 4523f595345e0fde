"""TLS with a certificate of one's own, as the script makes it."""

from __future__ import annotations

import datetime
import shutil
import socket
import ssl
import stat
import subprocess
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.nginx.front import ANSWER_LIMIT_S, ROOT, USER, Front, assert_problem
from tests.nginx.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("nginx", "openssl")

SCRIPT_LIMIT_S = 60


def make_certificate(files: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(files / "make-certificate.sh"), *arguments]
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=SCRIPT_LIMIT_S, user=USER, group=USER
    )


@pytest.fixture(scope="module")
def secure() -> Iterator[tuple[Front, Upstream]]:
    """nginx with TLS on."""
    upstream = Upstream()
    front = Front([upstream.port])
    try:
        done = make_certificate(front.files, "corral.example.org", "192.0.2.7", "2001:db8::7")
        assert done.returncode == 0, done.stderr
        yield front.start(), upstream
    finally:
        front.close()
        upstream.close()


@pytest.fixture
def trusted(secure: tuple[Front, Upstream]) -> ssl.SSLContext:
    """What a client is that was told to trust the certificate."""
    return ssl.create_default_context(cafile=str(secure[0].files / "tls" / "certificate.pem"))


def test_the_certificate_is_for_its_names_and_for_a_year(secure: tuple[Front, Upstream]) -> None:
    folder = secure[0].files / "tls"
    made = x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    lasts = made.not_valid_after_utc - made.not_valid_before_utc

    assert names.get_values_for_type(x509.DNSName) == ["localhost", "corral.example.org"]
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"]
    assert datetime.timedelta(days=365) < lasts <= datetime.timedelta(days=398)
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".pem") == ["certificate.pem", "key.pem"]
    assert not list(folder.glob(".new*"))


def test_a_client_that_trusts_it_is_served(secure: tuple[Front, Upstream], trusted: ssl.SSLContext) -> None:
    front, upstream = secure
    answer = httpx.get(f"{front.tls_url}/health", verify=trusted, timeout=ANSWER_LIMIT_S)

    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert upstream.taken[-1].fields["x-forwarded-proto"] == "https"
    assert front.log(answer.headers["x-request-id"])["tls"].startswith("TLSv1.")


def test_http_2_is_spoken_and_corral_sees_the_same_request(
    secure: tuple[Front, Upstream], trusted: ssl.SSLContext
) -> None:
    front, upstream = secure
    trusted.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", front.tls_port), ANSWER_LIMIT_S) as plain:
        with trusted.wrap_socket(plain, server_hostname="localhost") as sock:
            assert sock.selected_alpn_protocol() == "h2"
            status, body = _ask_h2(sock, "/mcp/mine/execute", b'{"method":"ping"}')

    assert status == "200"
    assert b"body_bytes" in body
    taken = upstream.taken[-1]
    assert taken.head.startswith(b"POST /mcp/mine/execute HTTP/1.1\r\n")
    assert taken.fields["host"] == taken.fields["x-forwarded-host"] == "corral.example.org"
    assert taken.body_bytes == 17
    assert front.log("h2-call")["pool"] == "calls"
    assert front.log("h2-call")["protocol"] == "HTTP/2.0"


def _ask_h2(sock: ssl.SSLSocket, path: str, body: bytes) -> tuple[str, bytes]:
    h2c = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    h2c.initiate_connection()
    fields = {":method": "POST", ":path": path, ":scheme": "https", ":authority": "corral.example.org"}
    fields |= {"content-length": str(len(body)), "content-type": "application/json", "x-request-id": "h2-call"}
    h2c.send_headers(1, list(fields.items()))
    h2c.send_data(1, body, end_stream=True)
    sock.sendall(h2c.data_to_send())
    status, received = "", b""
    while True:
        for event in h2c.receive_data(sock.recv(65536)):
            if isinstance(event, h2.events.ResponseReceived):
                status = next(str(value) for name, value in event.headers if str(name) == ":status")
            elif isinstance(event, h2.events.DataReceived):
                received += event.data
            elif isinstance(event, h2.events.StreamEnded):
                return status, received
        sock.sendall(h2c.data_to_send())


def test_plain_http_on_the_port_for_tls_is_told_so(secure: tuple[Front, Upstream]) -> None:
    front, _upstream = secure
    answer = httpx.get(f"http://127.0.0.1:{front.tls_port}/", timeout=ANSWER_LIMIT_S)

    assert "https://" in assert_problem(answer, 400, "bad_request")["hint"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_old_versions_of_tls_are_not_spoken(secure: tuple[Front, Upstream], trusted: ssl.SSLContext) -> None:
    trusted.minimum_version = trusted.maximum_version = ssl.TLSVersion.TLSv1_1
    trusted.set_ciphers("DEFAULT:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", secure[0].tls_port), ANSWER_LIMIT_S) as plain:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            trusted.wrap_socket(plain, server_hostname="localhost")


def test_without_a_certificate_tls_is_off() -> None:
    front = Front([1])
    try:
        front.start()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", front.tls_port)) != 0
    finally:
        front.close()


@pytest.mark.parametrize("name", ["a b", "x,IP:1.2.3.4", "--help", "a/b", ""])
def test_what_is_no_name_is_refused_and_nothing_is_written(name: str) -> None:
    front = Front([1])
    try:
        done = make_certificate(front.files, name)
        assert (done.returncode, done.stdout) == (64, "")
        assert "not a host name" in done.stderr
        assert [path.name for path in (front.files / "tls").iterdir() if path.suffix == ".pem"] == []
    finally:
        front.close()


def test_the_files_of_a_certificate_are_never_committed() -> None:
    git = shutil.which("git")
    assert git is not None
    asked = ["nginx/tls/key.pem", "nginx/tls/certificate.pem", "nginx/tls/server.conf"]
    done = subprocess.run([git, "check-ignore", *asked], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == asked
