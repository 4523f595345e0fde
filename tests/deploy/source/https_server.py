"""An https server on loopback with an authority of its own: files, misdeeds, and git's own http-backend. And a proxy.

Its certificate is for `git.test` and `127.0.0.1`, names that no resolver knows.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trio
from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "git.test"
SOCKET_LIMIT_S = 20.0


@frozen
class Authority:
    """Files in PEM: the authority's certificate, and a server's chain and key."""

    ca: Path
    chain: Path
    key: Path


def make_authority(folder: Path) -> Authority:
    """A new authority, with one server."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Corral test authority")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)

    def certificate(subject: x509.Name, public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    usage = dict.fromkeys((*unused, "decipher_only"), False)
    ca = (
        certificate(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    alternatives = [x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server = (
        certificate(name, key.public_key())
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    made = Authority(folder / "ca.pem", folder / "chain.pem", folder / "key.pem")
    made.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    made.chain.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


Handler = BaseHTTPRequestHandler
Page = Callable[[Handler], None]


@define(eq=False)
class Server:
    """What it serves by path (without the query), the longest beginning first; and what it was asked for."""

    port: int
    repositories: Path
    pages: dict[str, Page] = field(factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(factory=list)
    connections: int = 0
    speaks_v2: bool = True
    ended: threading.Event = field(factory=threading.Event)
    """Slow pages stop when it is set."""

    def url(self, path: str) -> str:
        return f"https://{HOST}:{self.port}/{path}"

    def answer(self, handler: Handler) -> None:
        self.asked.append((handler.path, {name.lower(): value for name, value in handler.headers.items()}))
        path = handler.path.partition("?")[0].lstrip("/")
        for beginning in sorted(self.pages, key=len, reverse=True):
            if path.startswith(beginning):
                return self.pages[beginning](handler)
        return git_backend(handler, self)


def content(body: bytes, status: int = 200, **headers: str) -> Page:
    """A page with a body and its length."""

    def page(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        with suppress(OSError):
            handler.wfile.write(body)

    return page


def redirect(to: str, status: int = 302) -> Page:
    return content(b"", status, location=to)


def git_backend(handler: Handler, server: Server) -> None:
    """Git's own server, as a CGI program."""
    path, _, query = handler.path.partition("?")
    body = handler.rfile.read(int(handler.headers.get("content-length", "0")))
    environ = {
        "PATH": os.environ["PATH"],
        "GIT_PROJECT_ROOT": str(server.repositories),
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "HOME": "/nonexistent",
        "REQUEST_METHOD": handler.command,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": handler.headers.get("content-type", ""),
        "HTTP_CONTENT_ENCODING": handler.headers.get("content-encoding", ""),
        "REMOTE_ADDR": "127.0.0.1",
    }
    if server.speaks_v2:
        environ["GIT_PROTOCOL"] = handler.headers.get("git-protocol", "")
    out = subprocess.run(["git", "http-backend"], input=body, capture_output=True, check=False, env=environ).stdout
    head, _, rest = out.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
    status = int(headers.pop("Status", "200").split()[0])
    content(rest, status, **{name.replace("-", "_"): value for name, value in headers.items()})(handler)


@contextmanager
def serving(authority: Authority, repositories: Path, host: str = "127.0.0.1") -> Iterator[Server]:
    """A server in threads of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.chain, authority.key)

    class Answer(Handler):
        protocol_version = "HTTP/1.1"
        timeout = SOCKET_LIMIT_S

        def setup(self) -> None:
            server.connections += 1
            self.request.settimeout(SOCKET_LIMIT_S)
            with suppress(OSError):
                self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

        def do_GET(self) -> None:  # noqa: N802 - http.server's name for it
            server.answer(self)

        do_POST = do_GET  # noqa: N815

        def handle(self) -> None:
            with suppress(OSError):
                super().handle()

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        block_on_close = True
        daemon_threads = False

        def shutdown_request(self, request: Any) -> None:
            pass  # the request's socket was wrapped; closed below

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            with suppress(OSError):
                handler = Answer(request, client_address, self)
                handler.request.close()
            request.close()

    listener = Quiet((host, 0), Answer)
    server = Server(listener.server_address[1], repositories)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        listener.shutdown()
        thread.join()
        listener.server_close()


@contextmanager
def proxying(to: int) -> Iterator[tuple[int, list[str]]]:
    """A proxy that leads every CONNECT to one port of loopback: its own port, and the places that were asked for."""
    asked: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def lead(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", to), timeout=SOCKET_LIMIT_S) as upstream:
            client.settimeout(SOCKET_LIMIT_S)
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            asked.append(head.split()[1].decode())
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=pump, args=(upstream, client))
            back.start()
            pump(client, upstream)
            back.join()

    threads: list[threading.Thread] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=lead, args=(listener.accept()[0],)))
                threads[-1].start()

    main = threading.Thread(target=serve)
    main.start()
    try:
        yield listener.getsockname()[1], asked
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        main.join()
        for thread in threads:
            thread.join(SOCKET_LIMIT_S)


@define
class Names:
    """A resolver that leads every name to the next of its answers, the last one for ever."""

    answers: list[tuple[str, ...]] = field(factory=lambda: [("127.0.0.1",)])
    asked: list[str] = field(factory=list)

    async def __call__(self, host: str, port: int, **_options: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]
