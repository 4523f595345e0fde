"""The token table: who is let in, who no longer, and how current it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt
import pytest

from controlplane.errors import Unauthorized
from controlplane.model import Role, Token, User
from controlplane.web import auth
from controlplane.web.auth import TokenTable, digest_of, mint

KEY = b"k" * 64
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class World:
    """A table with alice (deployer) and root (admin), and clocks to turn. JWTs are checked against the real time."""

    def __init__(self) -> None:
        self.clock, self.monotonic = Clock(NOW.timestamp()), Clock(0.0)
        self.table = TokenTable(jwt_key=KEY, clock=self.clock, monotonic=self.monotonic)
        self.users = [User(name="alice", role=Role.DEPLOYER), User(name="root", role=Role.ADMIN)]
        self.tokens: list[Token] = []
        self.load()

    def load(self) -> None:
        self.table.load(self.users, self.tokens)

    def token(self, role: Role = Role.CALLER, *, owner: str = "alice", expires_at: datetime | None = None) -> Token:
        text, digest = mint()
        token = Token(
            id=uuid4(), owner=owner, name=text, role=role, digest=digest, created_at=NOW, expires_at=expires_at
        )
        self.tokens.append(token)
        self.load()
        return token

    def refuses(self, header: str | bytes | None) -> bool:
        try:
            self.table.verify(header)
        except Unauthorized:
            return True
        return False


@pytest.fixture
def world() -> World:
    return World()


def signed(claims: dict[str, object], *, key: bytes = KEY, algorithm: str = "HS256") -> str:
    return "Bearer " + jwt.encode(claims, key, algorithm=algorithm)


def claims(**changes: object) -> dict[str, object]:
    """Good ones: alice as caller, until an hour from the world's now."""
    whole = {"sub": "alice", "role": "caller", "exp": int(NOW.timestamp()) + 3600} | changes
    return {name: value for name, value in whole.items() if value is not None}


@pytest.fixture(autouse=True)
def _jwt_lives_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyJWT compares `exp` with the machine's clock: it must see the world's."""

    class Then(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return NOW

    monkeypatch.setattr("jwt.api_jwt.datetime", Then)


def test_a_minted_token_is_known_by_its_digest_alone() -> None:
    text, digest = mint()

    assert digest == digest_of(text.encode())
    assert text != mint()[0]


def test_a_known_token_says_who_it_is(world: World) -> None:
    token = world.token(Role.CALLER)

    principal = world.table.verify(f"Bearer {token.name}")

    assert (principal.owner, principal.role, principal.token_id) == ("alice", Role.CALLER, str(token.id))


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
def test_the_schemes_case_and_extra_spaces_do_not_matter(world: World, scheme: str) -> None:
    token = world.token()

    assert world.table.verify(f"{scheme} {token.name}").owner == "alice"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "{token}",
        "Basic {token}",
        "Token {token}",
        "Bearer {token} ",
        " Bearer {token}",
        "Bearer {token}x",
        "Bearer {token}, Bearer {token}",
        "Bearer\t{token}",
        "Bearer {token}\x00",
        "Bearer é{token}",
        "Bearer " + "a" * 5_000,
        "Bearer a.b.c",
        "Bearer ..",
        "Bearer " + "x" * 43,
    ],
)
def test_anything_but_one_known_bearer_token_is_refused(world: World, header: str | None) -> None:
    token = world.token()

    assert world.refuses(header and header.replace("{token}", token.name))


def test_a_role_is_capped_by_its_users(world: World) -> None:
    token = world.token(Role.ADMIN)

    assert world.table.verify(f"Bearer {token.name}").role is Role.DEPLOYER


def test_a_token_ends_at_its_time(world: World) -> None:
    token = world.token(expires_at=NOW + timedelta(seconds=10))

    world.clock.now += 9.9
    assert not world.refuses(f"Bearer {token.name}")
    world.clock.now += 0.1
    assert world.refuses(f"Bearer {token.name}")


def test_a_disabled_or_removed_user_has_no_valid_token(world: World) -> None:
    token = world.token()

    world.table.put_user(User(name="alice", role=Role.DEPLOYER, disabled=True))
    assert world.refuses(f"Bearer {token.name}")

    world.users = [user for user in world.users if user.name != "alice"]
    world.load()
    assert world.refuses(f"Bearer {token.name}")


def test_a_token_can_be_added_and_revoked_at_once(world: World) -> None:
    token = world.token()
    world.table.discard_token(token.id)
    assert world.refuses(f"Bearer {token.name}")

    world.table.put_token(token)
    assert not world.refuses(f"Bearer {token.name}")


def test_a_verdict_holds_until_anything_changes_or_it_expires(world: World) -> None:
    token = world.token(expires_at=NOW + timedelta(seconds=10))
    grant = world.table.grant(f"Bearer {token.name}".encode())
    generation = world.table.generation

    assert world.table.holds(grant, generation)
    world.clock.now += 10
    assert not world.table.holds(grant, generation)
    world.clock.now -= 10
    world.table.put_user(User(name="new", role=Role.VIEWER))
    assert not world.table.holds(grant, generation)


# -- JWT


def test_a_jwt_of_an_existing_user_is_accepted_with_its_role_capped(world: World) -> None:
    assert world.table.verify(signed(claims())).role is Role.CALLER
    assert world.table.verify(signed(claims(role="admin"))).role is Role.DEPLOYER
    assert world.table.verify(signed(claims(sub="root", role="admin"))).is_admin


@pytest.mark.parametrize(
    ("issued_s", "is_accepted"),
    [(-3600, False), (-1, False), (0, True), (0.9, True), (60, True), (None, True)],
    ids=["hour before", "second before", "same second", "its fraction", "after", "does not say"],
)
def test_a_jwt_of_a_removed_user_is_none_of_whoever_gets_the_name(
    world: World, issued_s: float | None, is_accepted: bool
) -> None:
    """`iat` against the time at which the user was made; without it, nobody can tell."""
    made = NOW - timedelta(minutes=5)
    world.users = [User(name="alice", role=Role.DEPLOYER, created_at=made + timedelta(milliseconds=700))]
    world.load()

    header = signed(claims(iat=None if issued_s is None else made.timestamp() + issued_s))

    assert world.refuses(header) is not is_accepted


@pytest.mark.parametrize("issued", ["yesterday", {}, [], True, 1e999, -1e999])
def test_a_jwt_that_says_nonsense_of_when_it_was_made_is_no_error(world: World, issued: object) -> None:
    world.users = [User(name="alice", role=Role.DEPLOYER, created_at=NOW)]
    world.load()

    assert world.refuses(signed(claims(iat=issued)))


def test_a_jwt_ends_at_its_time_even_when_it_was_verified_before(world: World) -> None:
    header = signed(claims())
    assert not world.refuses(header)

    world.clock.now += 3600

    assert world.refuses(header)


@pytest.mark.parametrize(
    "header",
    [
        signed(claims(exp=None)),
        signed(claims(sub=None)),
        signed(claims(role=None)),
        signed(claims(sub="nobody")),
        signed(claims(sub=7)),
        signed(claims(sub=["alice"])),
        signed(claims(role="god")),
        signed(claims(role=["admin"])),
        signed(claims(exp=int(NOW.timestamp()) - 1)),
        signed(claims(exp="soon")),
        signed(claims(exp=10**30)),
        signed(claims(nbf=int(NOW.timestamp()) + 60)),
        signed(claims(aud="elsewhere")),
        signed(claims(), key=b"x" * 64),
        signed(claims(), key=KEY * 2, algorithm="HS512"),
        signed(claims(), algorithm="HS384"),
        "Bearer " + jwt.encode(claims(), None, algorithm="none"),
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.",
        "Bearer " + "W" * 1000 + "." + "W" * 1000 + ".x",
    ],
    ids=lambda header: None,
)
def test_a_jwt_that_is_wrong_in_any_way_is_refused(world: World, header: str) -> None:
    assert world.refuses(header)


def test_without_a_key_no_jwt_is_accepted(world: World) -> None:
    world.table.jwt_key = None

    assert world.refuses(signed(claims()))


def test_the_cache_of_verified_jwts_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "JWT_CACHE_MAX", 5)

    for number in range(20):
        world.table.verify(signed(claims(jti=str(number))))

    assert world.table.statistics().jwts_cached == 5


def test_disabling_a_user_ends_a_cached_jwt(world: World) -> None:
    header = signed(claims())
    world.table.verify(header)

    world.table.put_user(User(name="alice", role=Role.DEPLOYER, disabled=True))

    assert world.refuses(header)


# -- streams


def test_watchers_are_told_once_when_their_token_is_revoked(world: World) -> None:
    token, other = world.token(), world.token()
    told: list[str] = []
    world.table.on_revoked(world.table.verify(f"Bearer {token.name}"), lambda: told.append("revoked"))
    world.table.on_revoked(world.table.verify(f"Bearer {other.name}"), lambda: told.append("other"))

    world.table.discard_token(token.id)
    world.table.sweep()

    assert told == ["revoked"]


def test_watchers_are_told_by_a_sweep_when_their_credential_expires(world: World) -> None:
    token = world.token(expires_at=NOW + timedelta(seconds=10))
    told: list[str] = []
    world.table.on_revoked(world.table.verify(f"Bearer {token.name}"), lambda: told.append("token"))
    world.table.on_revoked(world.table.verify(signed(claims())), lambda: told.append("jwt"))

    world.clock.now += 10
    world.table.sweep()
    assert told == ["token"]
    world.clock.now += 3600
    world.table.sweep()
    assert told == ["token", "jwt"]


def test_a_stream_ends_when_its_user_loses_the_role_it_was_opened_with(world: World) -> None:
    token = world.token(Role.ADMIN, owner="root")
    told: list[str] = []
    world.table.on_revoked(world.table.verify(f"Bearer {token.name}"), lambda: told.append("token"))

    world.table.put_user(User(name="root", role=Role.VIEWER))

    assert told == ["token"]


def test_who_is_revoked_before_he_watches_is_told_at_once(world: World) -> None:
    token = world.token()
    principal = world.table.verify(f"Bearer {token.name}")
    world.table.discard_token(token.id)
    told: list[str] = []

    world.table.on_revoked(principal, lambda: told.append("late"))

    assert told == ["late"]


def test_who_stops_watching_is_not_told(world: World) -> None:
    token = world.token()
    told: list[str] = []
    stop = world.table.on_revoked(world.table.verify(f"Bearer {token.name}"), lambda: told.append("x"))

    stop()
    world.table.discard_token(token.id)

    assert told == []


# -- last use, and staleness


def test_use_is_reported_once_and_survives_a_reload(world: World) -> None:
    token, _unused = world.token(), world.token()
    world.table.verify(f"Bearer {token.name}")
    world.load()

    assert world.table.touches() == {token.id: NOW}
    assert world.table.touches() == {}


def test_a_kept_verdict_counts_as_use(world: World) -> None:
    token = world.token()
    grant = world.table.grant(f"Bearer {token.name}".encode())
    world.table.touches()

    world.table.holds(grant, world.table.generation)

    assert world.table.touches() == {token.id: NOW}


def test_while_changes_are_heard_of_nothing_need_be_read_again(world: World) -> None:
    world.monotonic.now += 1e6

    assert not world.table.reread_due
    assert not world.table.stale


def test_after_a_lost_listen_the_table_counts_for_five_seconds(world: World) -> None:
    token = world.token()
    world.table.listen_lost()
    world.monotonic.now += 4.9
    assert not world.table.reread_due
    world.monotonic.now += 0.1

    assert world.table.reread_due
    assert world.table.stale
    assert not world.refuses(f"Bearer {token.name}"), "it is kept in force while the database is away"


def test_losing_it_again_does_not_grant_another_five_seconds(world: World) -> None:
    world.table.listen_lost()
    world.monotonic.now += 3
    world.table.listen_lost()
    world.monotonic.now += 2

    assert world.table.reread_due


def test_each_reading_without_listen_counts_for_another_five_seconds(world: World) -> None:
    world.table.listen_lost()
    world.monotonic.now += 5
    world.load()
    assert not world.table.reread_due
    world.monotonic.now += 5

    assert world.table.reread_due


def test_when_listen_is_back_the_table_is_read_once_and_counts_again(world: World) -> None:
    world.table.listen_lost()
    world.monotonic.now += 60
    world.table.listen_restored()
    assert world.table.reread_due, "what happened meanwhile was not heard of"
    world.load()
    world.monotonic.now += 60

    assert not world.table.reread_due
    assert not world.table.stale


def test_the_alarm_is_logged_once_per_outage(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        world.table.listen_lost()
        world.monotonic.now += 10
        assert [world.table.stale for _ in range(3)] == [True] * 3
        world.table.listen_restored()
        world.load()

    assert len(caplog.records) == 2


def test_secrets_do_not_show_in_the_tables_repr(world: World) -> None:
    world.token()

    assert "kkkk" not in repr(world.table)
    assert "digest" not in repr(world.table)
