"""A small OpenID Connect issuer on a real socket: metadata, keys, tokens signed with RSA and EC keys of its own.

As an authorization server for MCP clients it lets everybody register and approves at once, as a person would.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from attrs import define, field
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

if TYPE_CHECKING:
    from collections.abc import Iterator

AUDIENCE = "corral"
A_DAY_S = 86_400
"""Tokens are made when tests are collected, and a run may take more than an hour until they are used."""


@cache
def rsa_key(name: str = "rsa") -> rsa.RSAPrivateKey:
    """The same for the same name: making one takes its time."""
    del name
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ec_key(name: str = "ec") -> ec.EllipticCurvePrivateKey:
    """The same for the same name."""
    del name
    return ec.generate_private_key(ec.SECP256R1())


def jwk_of(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, **more: Any) -> dict[str, Any]:
    """The public half as a JWK."""
    if isinstance(private, rsa.RSAPrivateKey):
        return {**RSAAlgorithm.to_jwk(private.public_key(), as_dict=True), **more}
    return {**ECAlgorithm.to_jwk(private.public_key(), as_dict=True), **more}


def hs256_by(secret: bytes, claims: dict[str, Any], **header: Any) -> str:
    """A token that is signed by whatever bytes, which PyJWT would not do with a public key."""
    parts = ({"alg": "HS256", **header}, claims)
    text = b".".join(jwt.utils.base64url_encode(json.dumps(part).encode()) for part in parts)
    signature = hmac.digest(secret, text, "sha256")
    return (text + b"." + jwt.utils.base64url_encode(signature)).decode()


@define
class TestIssuer:
    """What it answers may be changed at any time."""

    __test__ = False

    url: str = "https://login.example.com"
    keys: list[dict[str, Any]] = field(
        factory=lambda: [jwk_of(rsa_key(), kid="rsa", use="sig"), jwk_of(ec_key(), kid="ec", use="sig")]
    )
    metadata: dict[str, Any] = field(factory=dict)
    """Instead of what it would say of itself."""
    status: int = 200
    asked: list[str] = field(factory=list)
    """Paths, in the order of the requests."""
    codes: dict[str, dict[str, str]] = field(factory=dict)
    user: str = "alice"
    """Who approves."""

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Of a good token; None takes a claim away."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "role": "deployer",
            "iat": now,
            "exp": now + A_DAY_S,
        }
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def token(self, *, algorithm: str = "RS256", key: Any = None, kid: str | None = "", **changes: Any) -> str:
        """A token; without `kid` that of the key that fits the algorithm, None: it names none."""
        mine, name = (rsa_key(), "rsa") if algorithm[0] in "RP" else (ec_key(), "ec")
        headers = {} if kid is None else {"kid": kid or name}
        return jwt.encode(self.claims(**changes), mine if key is None else key, algorithm, headers=headers)

    def document(self) -> bytes:
        """Its keys."""
        return json.dumps({"keys": self.keys}).encode()

    def about(self) -> dict[str, Any]:
        """Its metadata."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "registration_endpoint": f"{self.url}/register",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "scopes_supported": ["corral:read", "corral:call", "corral:deploy", "corral:admin"],
            **self.metadata,
        }

    # -- as an authorization server

    def register(self, body: bytes) -> dict[str, Any]:
        return {**json.loads(body), "client_id": secrets.token_hex(8), "token_endpoint_auth_method": "none"}

    def authorize(self, query: str) -> str:
        """Approve; returns where the browser is sent."""
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        code = secrets.token_hex(8)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked.get('state', ''), 'iss': self.url})}"

    def exchange(self, body: bytes) -> dict[str, Any]:
        """A code for a token, whose audience is the resource that was named (RFC 8707)."""
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        asked = self.codes.pop(form["code"])
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
        scope = asked.get("scope", "")
        token = self.token(sub=self.user, role=None, scope=scope, aud=asked.get("resource", AUDIENCE))
        return {"access_token": token, "token_type": "Bearer", "expires_in": 600, "scope": scope}


@contextmanager
def issuing() -> Iterator[TestIssuer]:
    """One on a free port of the loopback interface."""
    issuer = TestIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            parts = urlsplit(self.path)
            if parts.path in {"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"}:
                self._say(json.dumps(issuer.about()).encode())
            elif parts.path == "/keys":
                self._say(issuer.document())
            elif parts.path == "/authorize":
                self.send_response(302)
                self.send_header("location", issuer.authorize(parts.query))
                self.send_header("content-length", "0")
                self.end_headers()
            else:
                self._say(b"{}", 404)

        def do_POST(self) -> None:
            issuer.asked.append(self.path)
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/register":
                self._say(json.dumps(issuer.register(body)).encode(), 201)
            else:
                self._say(json.dumps(issuer.exchange(body)).encode())

        def _say(self, body: bytes, status: int | None = None) -> None:
            self.send_response(status or issuer.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join(10)
