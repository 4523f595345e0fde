"""JWTs of an issuer: its keys, what its tokens say, and how its keys stay current."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import jwt
import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from controlplane.config import Config, ConfigError, load
from controlplane.errors import Unauthorized
from controlplane.model import Role, User
from controlplane.web.auth import TokenTable
from controlplane.web.oidc import fetching
from controlplane.web.oidc.claims import Refused, claim_of, instances_of, role_of
from controlplane.web.oidc.issuer import LEEWAY_S, Issuer
from controlplane.web.oidc.keys import BadKeys, read_keys
from tests.web.oidc_issuer import AUDIENCE, TestIssuer, ec_key, hs256_by, issuing, jwk_of, rsa_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from controlplane.model import Principal

ISSUER = "https://login.example.com"
BASE = "https://mcp.example.com"
ID = UUID("11111111-2222-3333-4444-555555555555")
ALLOWED = ("RS256", "ES256")
USERS = [
    User(name="alice", role=Role.DEPLOYER),
    User(name="root", role=Role.ADMIN),
    User(name="gone", role=Role.DEPLOYER, disabled=True),
]


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


@pytest.fixture
def there() -> TestIssuer:
    return TestIssuer(ISSUER)


@pytest.fixture
def table(there: TestIssuer) -> TokenTable:
    config = Config(oidc_issuer=ISSUER, oidc_audience=AUDIENCE, public_url=BASE)
    issuer = Issuer.of_config(config)
    assert issuer is not None
    table = TokenTable(jwt_key=b"k" * 32, issuer=issuer)
    issuer.on_change = table.issuer_changed
    table.load(USERS, [])
    issuer.take(read_keys(there.document(), ALLOWED))
    return table


def ask(table: TokenTable, token: str) -> Principal:
    return table.verify(f"Bearer {token}")


# -- keys


def test_keys_are_held_by_name_with_the_algorithms_that_fit_them() -> None:
    curve = ec.generate_private_key(ec.SECP384R1())
    keys = read_keys(
        document(jwk_of(rsa_key(), kid="a"), jwk_of(rsa_key(), kid="b", alg="PS256"), jwk_of(curve, kid="c")),
        ("RS256", "PS256", "ES256", "ES384"),
    )
    assert {kid: key.algorithms for kid, key in keys.by_kid.items()} == {
        "a": ("RS256", "PS256"),
        "b": ("PS256",),
        "c": ("ES384",),
    }


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x"},
        {"kty": "RSA", "kid": "x"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "x"},
        {"kty": ["RSA"], "kid": "x"},
        {"kid": "x"},
        {},
        jwk_of(rsa_key(), kid="x", use="enc"),
        jwk_of(rsa_key(), kid="x", key_ops=["encrypt"]),
        jwk_of(rsa_key(), kid="x", key_ops="verify"),
        jwk_of(rsa_key(), kid="x", alg="HS256"),
        jwk_of(rsa_key(), kid="x", alg="none"),
        jwk_of(rsa_key(), kid=7),
        jwk_of(rsa_key(), kid="x" * 257),
        jwk_of(rsa.generate_private_key(public_exponent=65537, key_size=1024), kid="x"),
        {**jwk_of(ec_key(), kid="x"), "d": "AA"},
    ],
    ids=lambda key: json.dumps(key)[:40],
)
def test_what_no_signature_can_be_verified_with_is_left_out(key: dict[str, Any]) -> None:
    keys = read_keys(document(key, jwk_of(ec_key(), kid="good")), ALLOWED)
    assert set(keys.by_kid) == {"good"}
    with pytest.raises(BadKeys):
        read_keys(document(key), ALLOWED)


DEEP = b"[" * 100_000 + b"]" * 100_000
"""Valid JSON, which takes more stack than there is."""


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[1]}',
        b"\xff",
        b'{"keys":[]}',
        b"[" * 100_000,
        b'{"keys":[{"x":' + DEEP + b"}]}",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_document_of_keys_is_refused(text: bytes) -> None:
    with pytest.raises(BadKeys):
        read_keys(text, ALLOWED)


def test_documents_have_bounds() -> None:
    with pytest.raises(BadKeys, match="64"):
        read_keys(document(*[{}] * 65), ALLOWED)
    with pytest.raises(BadKeys, match="256 KiB"):
        read_keys(document({"x": "y" * 300_000}), ALLOWED)


def test_a_token_without_a_key_id_is_fine_while_there_is_one_key() -> None:
    one = read_keys(document(jwk_of(rsa_key())), ALLOWED)
    assert one.find(None) is not None
    two = read_keys(document(jwk_of(rsa_key()), jwk_of(ec_key(), kid="e")), ALLOWED)
    assert two.find(None) is None
    assert two.find("e") is not None
    assert two.find("f") is None


# -- claims


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"role": "viewer"}, Role.VIEWER),
        ({"role": "admin"}, Role.ADMIN),
        ({"role": ["offline_access", "caller", "viewer"]}, Role.CALLER),
        ({"role": "editor"}, None),
        ({"role": {"admin": True}}, None),
        ({}, None),
        ({"scope": "openid corral:call"}, Role.CALLER),
        ({"scp": ["corral:read", "corral:deploy"]}, Role.DEPLOYER),
        ({"scope": "openid"}, None),
        ({"scope": "corral:other"}, None),
        ({"role": "admin", "scope": "corral:call"}, Role.CALLER),
        ({"role": "viewer", "scope": "corral:admin"}, Role.VIEWER),
        ({"role": "deployer", "scope": "openid profile"}, Role.DEPLOYER),
    ],
)
def test_a_role_comes_from_the_claim_and_the_scopes_cap_it(claims: dict[str, Any], role: Role | None) -> None:
    if role is None:
        with pytest.raises(Refused):
            role_of(claims, "role")
    else:
        assert role_of(claims, "role") is role


def test_a_claims_name_may_lead_into_nested_ones() -> None:
    claims = {"realm_access": {"roles": ["caller"]}, "https://example.com/role": "admin", "a": "b"}
    assert role_of(claims, "realm_access.roles") is Role.CALLER
    assert role_of(claims, "https://example.com/role") is Role.ADMIN
    assert claim_of(claims, "a.b") is None


@pytest.mark.parametrize(
    ("audience", "opens"),
    [
        (AUDIENCE, "everything"),
        (BASE, "everything"),
        (BASE + "/", "everything"),
        (["other", AUDIENCE], "everything"),
        ([f"{BASE}/mcp/memory", BASE], "everything"),
        (f"{BASE}/mcp/memory", {"alice/memory"}),
        (f"{BASE}/mcp/Memory/", {"alice/memory"}),
        (f"{BASE}/mcp/memory/sse", {"alice/memory"}),
        (f"{BASE}/mcp/bob/memory", {"bob/memory"}),
        (f"{BASE}/mcp/{ID}", {ID}),
        ([f"{BASE}/mcp/memory", f"{BASE}/mcp/{ID}", "other"], {"alice/memory", ID}),
        ("other", None),
        (None, None),
        ([], None),
        ([7, {}], None),
        (f"{BASE}/mcp/", None),
        (f"{BASE}/mcp/a/b/c/d", None),
        (f"{BASE}/instances", None),
        (f"{BASE}.evil.example/mcp/memory", None),
        (f"https://evil.example/{BASE}/mcp/memory", None),
        ("CORRAL", None),
    ],
)
def test_an_audience_opens_everything_or_one_endpoint_or_nothing(audience: Any, opens: Any) -> None:
    ours = {AUDIENCE, BASE}
    if opens is None:
        with pytest.raises(Refused):
            instances_of({"aud": audience}, "alice", ours=ours, base=BASE)
        return
    found = instances_of({"aud": audience}, "alice", ours=ours, base=BASE)
    assert found == (None if opens == "everything" else opens)


def test_without_an_address_of_our_own_no_endpoint_is_an_audience() -> None:
    with pytest.raises(Refused):
        instances_of({"aud": "/mcp/memory"}, "alice", ours={AUDIENCE}, base=None)


# -- tokens


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_good_token_is_its_users_with_the_role_capped(there: TestIssuer, table: TokenTable, algorithm: str) -> None:
    principal = ask(table, there.token(algorithm=algorithm))
    assert (principal.owner, principal.role, principal.instances) == ("alice", Role.DEPLOYER, None)
    assert principal.token_id.startswith("jwt:")
    assert ask(table, there.token(role="admin")).role is Role.DEPLOYER
    assert ask(table, there.token(role="viewer")).role is Role.VIEWER
    assert ask(table, there.token(aud=f"{BASE}/mcp/memory")).instances == {"alice/memory"}


def forged(there: TestIssuer, headers: dict[str, Any], claims: dict[str, Any] | None = None) -> str:
    """A token with any header, signed with nothing."""
    parts = (headers, claims or there.claims())
    head, body = (jwt.utils.base64url_encode(json.dumps(part).encode()).decode() for part in parts)
    return f"{head}.{body}.AAAA"


def pem_of_public() -> bytes:
    public = rsa_key().public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def bad_tokens(there: TestIssuer) -> Iterator[tuple[str, str]]:
    now = int(time.time())
    yield "another issuer", there.token(iss="https://evil.example")
    yield "no issuer", there.token(iss=None)
    yield "an issuer with a slash more", there.token(iss=ISSUER + "/")
    yield "another audience", there.token(aud="other")
    yield "no audience", there.token(aud=None)
    yield "expired", there.token(exp=now - LEEWAY_S - 1)
    yield "no expiry", there.token(exp=None)
    yield "an expiry beyond all calendars", there.token(exp=10**30)
    yield "not valid yet", there.token(nbf=now + LEEWAY_S + 60)
    yield "an unknown user", there.token(sub="nobody")
    yield "a disabled user", there.token(sub="gone")
    yield "no user", there.token(sub=None)
    yield "an empty user", there.token(sub="")
    yield "no role", there.token(role=None)
    yield "an unknown role", there.token(role="king")
    yield "another key", there.token(key=rsa_key("another"))
    yield "another key's id", there.token(kid="ec")
    yield "an unknown key id", there.token(kid="nothing")
    yield "no key id among several", there.token(kid=None)
    yield "an algorithm that is not allowed", there.token(algorithm="RS512")
    yield "PSS in place of PKCS 1", there.token(algorithm="PS256")
    yield "HS256 with a secret of somebody's", there.token(algorithm="HS256", key="s" * 40, kid="rsa")
    yield "no algorithm", jwt.encode(there.claims(), None, "none", headers={"kid": "rsa"})
    yield "no algorithm, spelt otherwise", forged(there, {"alg": "NonE", "kid": "rsa"})
    yield "the key itself in the header", forged(there, {"alg": "RS256", "jwk": jwk_of(rsa_key("another"))})
    yield (
        "an address of keys in the header",
        forged(there, {"alg": "RS256", "kid": "rsa", "jku": "https://evil.example"}),
    )
    yield "a key id that is no text", forged(there, {"alg": "RS256", "kid": ["rsa"]})
    yield "an endless key id", forged(there, {"alg": "RS256", "kid": "r" * 1000})
    yield (
        "a critical extension that nobody knows",
        jwt.encode(there.claims(), rsa_key(), "RS256", headers={"kid": "rsa", "crit": ["x"], "x": 1}),
    )
    yield "a signature of another text", there.token()[:-8] + "AAAAAAAA"
    yield "claims that are a list", jwt.api_jws.encode(b"[1]", rsa_key(), "RS256", headers={"kid": "rsa"})


BAD = [name for name, _ in bad_tokens(TestIssuer(ISSUER))]


@pytest.mark.parametrize("name", BAD)
def test_a_token_that_is_wrong_in_any_way_is_refused(there: TestIssuer, table: TokenTable, name: str) -> None:
    with pytest.raises(Unauthorized):
        ask(table, dict(bad_tokens(there))[name])


def test_the_public_key_is_no_secret_for_hs256(there: TestIssuer, table: TokenTable) -> None:
    """The classical confusion: what everybody can read signs nothing."""
    for secret in (pem_of_public(), there.document(), b""):
        with pytest.raises(Unauthorized):
            ask(table, hs256_by(secret, there.claims(), kid="rsa"))


def test_clocks_may_be_a_little_apart(there: TestIssuer, table: TokenTable) -> None:
    now = int(time.time())
    assert ask(table, there.token(exp=now - 5, nbf=now + 5, iat=now + 5)).owner == "alice"


def test_our_own_jwts_stay_accepted_beside_the_issuers(there: TestIssuer, table: TokenTable) -> None:
    own = jwt.encode({"sub": "alice", "role": "viewer", "exp": time.time() + 60}, b"k" * 32, "HS256")
    assert ask(table, own).role is Role.VIEWER
    assert ask(table, there.token()).role is Role.DEPLOYER


def test_a_key_that_is_withdrawn_ends_its_tokens_and_their_streams(there: TestIssuer, table: TokenTable) -> None:
    by_rsa, by_ec = there.token(), there.token(algorithm="ES256")
    ended: list[str] = []
    table.on_revoked(ask(table, by_rsa), lambda: ended.append("rsa"))
    table.on_revoked(ask(table, by_ec), lambda: ended.append("ec"))
    assert table.issuer is not None
    table.issuer.take(read_keys(document(jwk_of(ec_key(), kid="ec")), ALLOWED))
    assert ended == ["rsa"]
    assert ask(table, by_ec).owner == "alice"
    with pytest.raises(Unauthorized):
        ask(table, by_rsa)


def test_another_secret_key_ends_the_streams_of_our_own_jwts(table: TokenTable) -> None:
    own = jwt.encode({"sub": "alice", "role": "viewer", "exp": time.time() + 60}, b"k" * 32, "HS256")
    ended: list[int] = []
    table.on_revoked(ask(table, own), lambda: ended.append(1))
    table.take_jwt_key(b"l" * 32)
    assert ended == [1]


def test_reading_the_same_keys_again_changes_nothing(there: TestIssuer, table: TokenTable) -> None:
    before = table.generation
    assert table.issuer is not None
    table.issuer.take(read_keys(there.document(), ALLOWED))
    assert table.generation == before


def test_ed25519_works_where_it_is_allowed() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    member = jwt.algorithms.OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    issuer = Issuer(ISSUER, ("EdDSA",), frozenset({AUDIENCE}))
    issuer.take(read_keys(document({**member, "kid": "o"}), ("EdDSA",)))
    token = jwt.encode(TestIssuer(ISSUER).claims(), private, "EdDSA", headers={"kid": "o"})
    verdict = issuer.verify(token.encode())
    assert verdict is not None
    assert verdict.user == "alice"


# -- keys stay current


@pytest.fixture
def live() -> Iterator[TestIssuer]:
    with issuing() as issuer:
        yield issuer


def follower(live: TestIssuer, **more: Any) -> Issuer:
    return Issuer(live.url, ALLOWED, frozenset({AUDIENCE}), **more)


async def test_keys_are_found_by_the_issuers_metadata(live: TestIssuer) -> None:
    issuer = follower(live)
    assert await fetching.refresh(issuer)
    assert live.asked == ["/.well-known/openid-configuration", "/keys"]
    assert issuer.verify(live.token().encode()) is not None
    assert issuer.verify(live.token(algorithm="ES256").encode()) is not None


async def test_keys_are_read_where_the_settings_say(live: TestIssuer) -> None:
    issuer = follower(live, jwks_url=f"{live.url}/keys")
    assert await fetching.refresh(issuer)
    assert live.asked == ["/keys"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": "http://evil.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user:pass@evil.example/keys"},
        {"jwks_uri": 7},
    ],
    ids=str,
)
async def test_metadata_that_lead_elsewhere_are_not_followed(live: TestIssuer, metadata: dict[str, Any]) -> None:
    live.metadata = metadata
    issuer = follower(live)
    assert not await fetching.refresh(issuer)
    assert live.asked == ["/.well-known/openid-configuration"]
    assert issuer.statistics().problem


@pytest.mark.parametrize(
    ("issuer", "keys", "may"),
    [
        ("https://id.example", "https://keys.example/jwks", True),
        ("https://id.example", "http://keys.example/jwks", False),
        ("https://id.example", "http://127.0.0.1:8000/jwks", False),
        ("https://id.example", "https://localhost/jwks", False),
        ("http://127.0.0.1:9000", "http://localhost:9000/jwks", True),
        ("http://127.0.0.1:9000", "https://keys.example/jwks", True),
    ],
)
def test_only_an_issuer_on_this_host_leads_to_this_host(issuer: str, keys: str, may: bool) -> None:
    assert fetching.may_name(issuer, keys) is may


async def test_an_issuer_that_is_away_leaves_its_keys_in_force(
    live: TestIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = follower(live)
    assert await fetching.refresh(issuer)
    for change in ({"status": 500}, {"keys": []}, {"keys": [{"x": "y" * 300_000}]}):
        before = {name: getattr(live, name) for name in change}
        for name, value in change.items():
            setattr(live, name, value)
        with caplog.at_level(logging.INFO, "corral.auth"):
            assert not await fetching.refresh(issuer)
            assert not await fetching.refresh(issuer)
        for name, value in before.items():
            setattr(live, name, value)
        assert issuer.statistics().keys == 2
        assert issuer.verify(live.token().encode()) is not None
        assert [record.levelname for record in caplog.records].count("WARNING") == 1
        assert await fetching.refresh(issuer)
        assert issuer.statistics().problem is None
        caplog.clear()
    issuer.jwks_url = "http://127.0.0.1:1/keys"
    assert not await fetching.refresh(issuer)
    assert "ConnectError" in (issuer.statistics().problem or "")


async def test_an_unknown_key_has_them_looked_at_again_once_in_a_while(live: TestIssuer) -> None:
    issuer = follower(live, jwks_url=f"{live.url}/keys")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            changed = trio.Event()
            nursery.start_soon(
                lambda: fetching.run(issuer, lambda: changed.set(), min_interval_s=0.3, refresh_s=1000)  # noqa: PLW0108
            )
            await changed.wait()
            changed = trio.Event()
            live.keys = [jwk_of(rsa_key("new"), kid="new")]
            token = live.token(key=rsa_key("new"), kid="new").encode()
            for _ in range(100):
                assert issuer.verify(token) is None
            await changed.wait()
            assert issuer.verify(token) is not None
            assert live.asked == ["/keys", "/keys"]
            assert issuer.verify(live.token().encode()) is None  # the old one is gone
            nursery.cancel_scope.cancel()


# -- settings


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"JWKS_URL": "https://a.example/keys"}, "JWKS_URL"),
        ({"OIDC_AUDIENCE": "corral"}, "OIDC_AUDIENCE"),
        ({"OIDC_ISSUER": ISSUER}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "http://login.example.com", "OIDC_AUDIENCE": "c"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "https://u:p@login.example.com", "OIDC_AUDIENCE": "c"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "https://login.example.com?x=1", "OIDC_AUDIENCE": "c"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "login.example.com", "OIDC_AUDIENCE": "c"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": ISSUER, "OIDC_AUDIENCE": "c", "JWKS_URL": "http://10.0.0.1/keys"}, "JWKS_URL"),
        ({"OIDC_ALGORITHMS": "HS256"}, "OIDC_ALGORITHMS"),
        ({"OIDC_ALGORITHMS": "RS256,none"}, "OIDC_ALGORITHMS"),
        ({"PUBLIC_URL": "mcp.example.com"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://mcp.example.com/corral"}, "PUBLIC_URL"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_are_errors_at_start(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(environ)
    assert [problem.partition(":")[0] for problem in error.value.problems] == [named]


def test_settings_are_read_in_one_spelling() -> None:
    config = load({
        "OIDC_ISSUER": "http://127.0.0.1:8080/realms/a",
        "PUBLIC_URL": "https://MCP.Example.com/",
        "OIDC_ALGORITHMS": "es256 eddsa",
    })  # fmt: skip
    assert config.public_url == "https://mcp.example.com"
    assert config.oidc_algorithms == ("ES256", "EdDSA")
    assert Issuer.of_config(config) is not None
    assert Issuer.of_config(load({})) is None
