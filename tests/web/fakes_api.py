"""Stand-ins for what the resources need beyond `fakes`: runners with a life, a store in memory, a scripted deployer.

The Quart application, the guards, the tokens and the hub are the real ones, behind the real door.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import httpx
import trio
from attrs import Factory, define, evolve, field, frozen

from controlplane.config import Config
from controlplane.core.lifecycle import SETTLED, Desired, State
from controlplane.core.rawjson import encode
from controlplane.core.restart import RestartPolicy
from controlplane.deploy.inbox import Inbox
from controlplane.deploy.installs.store import InstallStore
from controlplane.deploy.source.uploads import Uploads
from controlplane.deploy.toolchain import Toolchain
from controlplane.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded, StorageUnavailable
from controlplane.hub import Hub
from controlplane.model import (
    Command,
    Evidence,
    Incarnation,
    Instance,
    Limits,
    Listing,
    LogLine,
    Principal,
    Revision,
    Role,
    Sample,
    Secret,
    Section,
    SourceType,
    Spec,
    Token,
    UsageDay,
    User,
)
from controlplane.rotation import Rotated
from controlplane.spawn.cgroups import Hierarchy
from controlplane.spawn.job import Features, Level
from controlplane.store.filters import Page
from controlplane.store.values import JournalStatistics, NamedEvent, StoredAudit, StoredEvent, StoreStatistics
from controlplane.supervise.catalogue import Catalogue
from controlplane.supervise.lanes import Lanes
from controlplane.supervise.listpages import MEMBERS, read_page
from controlplane.supervise.meter import Meter
from controlplane.supervise.succession import Succession
from controlplane.web.app import make_app, make_quart
from controlplane.web.services import Services
from tests.web.fakes import NOW, TOKENS, FakeJournal, make_issuer, make_token, make_tokens, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from controlplane.deploy.source.uploads import Upload
    from controlplane.store.filters import (
        AuditFilter,
        EventFilter,
        FleetEventFilter,
        IncarnationFilter,
        LogFilter,
        MetricFilter,
    )
    from controlplane.web.asgi import App
    from controlplane.web.auth import TokenTable
    from controlplane.wire.deploy import DeployIn, PatchIn, RedeployIn

BOB = "corral_bobs-token-0123456789"
SECRET = "hunter22-very-secret"
FAILURE = Evidence(
    code="exited",
    reason="the process exited with status 3 before its handshake was done",
    phase="handshake",
    at=NOW,
    incarnation=1,
    exit_code=3,
    stderr_tail=("boom \udc80",),
    hint="mend it",
)


def make_spec(**changes: Any) -> Spec:
    command = Command(command="npx", args=("-y", "srv", "--token", "abc", f"x{SECRET}"), cwd="/srv")
    made = Spec(source_type=SourceType.MCP_CONFIG, language="node", command=command, env={"API_KEY": SECRET, "A": "1"})
    return evolve(made, limits=Limits(), restart=RestartPolicy(), **changes)


@frozen
class FakeLogbook:
    dropped: int = 0
    redact: Callable[[str], str] = str


@frozen
class FakeLaunch:
    """What the instance was last started with."""

    enforcement: Mapping[str, str] = field(factory=lambda: {"memory_mb": "hard", "disk_mb": "soft"})


@define(eq=False)
class ApiRunner:
    """A runner that does at once what it is told, or waits where a test holds it."""

    instance: Instance
    phase: str = "running"
    pid: int | None = 4242
    uptime_s: float | None = 12.3456
    started_at: datetime | None = NOW
    notes: tuple[str, ...] = ("network is not in force at level process",)
    isolation: str = "process"
    launch: FakeLaunch | None = field(factory=FakeLaunch)
    protocol: None = None
    last_sample: Sample | None = None
    catalogue: Catalogue = field(default=Factory(lambda self: Catalogue(self.instance.id), takes_self=True))
    meter: Meter = field(factory=Meter)
    logbook: FakeLogbook = field(factory=FakeLogbook)
    listed: list[dict[str, Any]] | Exception = field(factory=lambda: [{"name": "add"}])
    gone: bool = True
    """What `wait_gone` answers."""
    calls_in_flight: int = 0
    lane: None = None
    succession: Succession | None = None
    lanes: Lanes = field(default=Factory(Lanes, takes_self=True))

    @property
    def state(self) -> State:
        return self.instance.state

    def become(self, state: State, **changes: Any) -> None:
        self.instance = evolve(self.instance, state=state, **changes)
        if state is not State.RUNNING:
            self.pid = self.uptime_s = self.started_at = None

    async def wait_settled(self, timeout_s: float) -> None:
        with trio.move_on_after(timeout_s):
            while self.state not in SETTLED:
                await trio.sleep(0.01)

    async def wait_gone(self, timeout_s: float) -> bool:
        return self.gone

    async def relist(self, section: Section) -> None:
        if isinstance(self.listed, Exception):
            raise self.listed
        page = read_page(section, b'"result":' + encode({MEMBERS[section]: self.listed}))
        assert page is not None
        self.catalogue.take(section, [page])


@frozen(kw_only=True)
class FakeSupervisorStatistics:
    waiting_to_start: int = 0


@define(eq=False)
class ApiSupervisor:
    """Finds with the real rules of who sees what; commands take effect at once, or fail as `outcome` says."""

    by_id: dict[UUID, ApiRunner] = field(factory=dict)
    outcome: State = State.RUNNING
    failure: Evidence = FAILURE
    away: bool = False

    def add(self, name: str, owner: str, **changes: Any) -> ApiRunner:
        instance = Instance(
            **{
                "id": uuid4(),
                "owner": owner,
                "name": name,
                "spec": make_spec(),
                "state": State.RUNNING,
                "created_at": NOW + timedelta(seconds=len(self.by_id)),
                "updated_at": NOW,
                **changes,
            }
        )
        runner = self.by_id[instance.id] = ApiRunner(instance)
        if instance.state is not State.RUNNING:
            runner.become(instance.state)
        return runner

    def runners(self) -> list[ApiRunner]:
        return list(self.by_id.values())

    def get(self, instance_id: UUID) -> ApiRunner:
        try:
            return self.by_id[instance_id]
        except KeyError:
            raise NotFound("There is no such instance.") from None

    def find(self, principal: Principal, ref: str) -> ApiRunner:
        for runner in self.by_id.values():
            instance = runner.instance
            names = {str(instance.id), f"{instance.owner}/{instance.name}"}
            if instance.owner == principal.owner:
                names.add(instance.name)
            if ref in names and principal.sees(instance.owner, instance.name, instance.id):
                return runner
        raise NotFound("There is no such instance.")

    def builds(self, owner: str) -> tuple[int, int]:
        return (1 if owner == "alice" else 0), 2

    def statistics(self) -> FakeSupervisorStatistics:
        return FakeSupervisorStatistics()

    async def start(self, runner: ApiRunner) -> None:
        self._write()
        if runner.state is State.RUNNING:
            raise Conflict("the instance is running already")
        runner.become(self.outcome, last_error=self.failure if self.outcome is State.FAILED else None)

    async def stop(self, runner: ApiRunner) -> None:
        self._write()
        runner.become(State.STOPPED, desired=Desired.STOPPED)

    async def restart(self, runner: ApiRunner) -> None:
        self._write()
        runner.become(self.outcome)

    async def remove(self, runner: ApiRunner) -> None:
        self._write()
        del self.by_id[runner.instance.id]
        runner.become(State.STOPPED, desired=Desired.DELETED)

    def _write(self) -> None:
        if self.away:
            raise StorageUnavailable("the database is away", retry_after_s=2)


@define(eq=False)
class FakeDeployer:
    """Makes an instance in the state that `outcome` says; a new revision is what the test makes of it."""

    supervisor: ApiSupervisor
    inbox: Inbox
    outcome: State = State.RUNNING
    seen: list[tuple[Principal, DeployIn, bytes, str | None]] = field(factory=list)
    uploads: list[Upload | None] = field(factory=list)
    revised: list[tuple[ApiRunner, Any]] = field(factory=list)
    """Each redeploy with its body, each rollback with its number."""
    error: Exception | None = None
    on_deploy: Callable[[ApiRunner], None] = lambda _: None
    """What happens before a deploy has returned."""

    async def deploy(
        self,
        principal: Principal,
        body: DeployIn,
        *,
        body_digest: bytes,
        idempotency_key: str | None = None,
        upload: Upload | None = None,
    ) -> ApiRunner:
        self.seen.append((principal, body, body_digest, idempotency_key))
        self.uploads.append(upload)
        if self.error is not None:
            raise self.error
        failed = FAILURE if self.outcome is State.FAILED else None
        runner = self.supervisor.add(body.name, principal.owner, state=self.outcome, last_error=failed)
        self.on_deploy(runner)
        return runner

    async def redeploy(
        self, principal: Principal, runner: ApiRunner, body: RedeployIn, upload: Upload | None = None
    ) -> Succession:
        self.uploads.append(upload)
        return await self._revise(runner, body)

    async def rollback(self, principal: Principal, runner: ApiRunner, revision: int | None) -> Succession:
        return await self._revise(runner, revision)

    async def _revise(self, runner: ApiRunner, wanted: Any) -> Succession:
        if self.error is not None:
            raise self.error
        self.revised.append((runner, wanted))

        async def nothing(_: Any) -> None:
            pass

        spec = evolve(runner.instance.spec, revision=runner.instance.spec.revision + 1)
        runner.succession = Succession(spec, nothing, nothing)
        return runner.succession

    async def patch(self, runner: ApiRunner, body: PatchIn) -> tuple[str, ...]:
        if body.labels is not None:
            runner.instance = evolve(runner.instance, labels=body.labels)
        return ("limits take effect at the next start",) if body.limits is not None else ()


@define(eq=False)
class FakeStore:
    """Users and tokens in memory; history as the test put it there."""

    users_: dict[str, User]
    tokens_: dict[UUID, Token]
    secrets_: dict[tuple[str, str], Secret] = field(factory=dict)
    lines: list[LogLine] = field(factory=list)
    deleted: dict[UUID, tuple[str, str]] = field(factory=dict)
    asked: list[Any] = field(factory=list)
    listings: list[Listing] = field(factory=list)
    revisions_: list[Revision] = field(factory=list)
    incarnations_: list[Incarnation] = field(factory=list)
    fleet_events_: list[NamedEvent] = field(factory=list)
    audit_: list[StoredAudit] = field(factory=list)
    usage: list[UsageDay] = field(factory=list)
    away: bool = False
    frozen: trio.Event | None = None
    """Set: `ping` waits for it, as for a stopped database."""

    def _read(self) -> None:
        if self.away:
            raise StorageUnavailable("the database is away", retry_after_s=2)

    async def listings_of(self, instance_id: UUID) -> list[Listing]:
        self._read()
        return [listing for listing in self.listings if listing.instance_id == instance_id]

    async def revisions(self, instance_id: UUID) -> list[Revision]:
        self._read()
        return self.revisions_

    async def sources_in_use(self) -> set[tuple[str, str]]:
        self._read()
        return set()

    async def users(self) -> list[User]:
        self._read()
        return list(self.users_.values())

    async def add_user(self, user: User) -> None:
        self._read()
        if user.name in self.users_:
            raise Conflict("the name is taken")
        self.users_[user.name] = user

    async def secrets(self, owner: str) -> list[Secret]:
        self._read()
        return sorted((s for s in self.secrets_.values() if s.owner == owner), key=lambda secret: secret.name)

    async def put_secret(self, owner: str, name: str, value: str, *, quota: int) -> tuple[Secret, bool]:
        self._read()
        if owner not in self.users_:
            raise NotFound("there is no such user")
        known = self.secrets_.get((owner, name))
        if known is None and len(await self.secrets(owner)) >= quota:
            raise QuotaExceeded("the quota is used up", evidence={"quota": "secrets", "limit": quota, "used": quota})
        made = Secret(owner=owner, name=name, created_at=known.created_at if known else NOW, updated_at=NOW)
        self.secrets_[owner, name] = made
        return made, known is None

    async def delete_secret(self, owner: str, name: str) -> Secret | None:
        self._read()
        return self.secrets_.pop((owner, name), None)

    async def update_user(
        self,
        name: str,
        *,
        role: Role | None = None,
        disabled: bool | None = None,
        quotas: dict[str, int | None] | None = None,
    ) -> User:
        if name not in self.users_:
            raise NotFound("there is no such user")
        changes: dict[str, Any] = {"role": role, "disabled": disabled}
        changes["quotas"] = evolve(self.users_[name].quotas, **quotas or {})
        user = self.users_[name] = evolve(self.users_[name], **{k: v for k, v in changes.items() if v is not None})
        return user

    async def remove_user(self, name: str) -> User:
        self._read()
        if name not in self.users_:
            raise NotFound("there is no such user")
        self.tokens_ = {i: token for i, token in self.tokens_.items() if token.owner != name}
        return self.users_.pop(name)

    async def usage_days(self, since: date, owner: str | None = None) -> list[UsageDay]:
        self._read()
        return [row for row in self.usage if row.day >= since and owner in (None, row.owner)]

    async def tokens(self) -> list[Token]:
        self._read()
        return list(self.tokens_.values())

    async def add_token(self, token: Token, *, quota: int | None = None) -> None:
        self._read()
        if token.owner not in self.users_:
            raise NotFound("there is no such user")
        if quota is not None and sum(kept.owner == token.owner for kept in self.tokens_.values()) >= quota:
            raise QuotaExceeded("no more tokens", evidence={"quota": "tokens"})
        self.tokens_[token.id] = token

    async def delete_token(self, token_id: UUID) -> Token | None:
        return self.tokens_.pop(token_id, None)

    async def instance_of_deleted(self, instance_id: UUID) -> tuple[str, str] | None:
        return self.deleted.get(instance_id)

    async def logs(self, instance_id: UUID, which: LogFilter) -> Page[LogLine]:
        self._read()
        self.asked.append(which)
        rows = [line for line in self.lines if line.instance_id == instance_id]
        rows = [line for line in rows if which.until is None or line.at < which.until]
        return Page(tuple(rows[-which.tail :] if which.tail else rows[: which.limit]), "more" if which.cursor else None)

    async def metrics(self, instance_id: UUID, which: MetricFilter) -> Page[Sample]:
        self._read()
        self.asked.append(which)
        return Page((Sample(at=NOW, cpu_percent=1.5, memory_mb=2.5, processes=3),))

    async def events(self, instance_id: UUID, which: EventFilter) -> Page[StoredEvent]:
        self._read()
        self.asked.append(which)
        event = StoredEvent(id=7, at=NOW, type="status", instance_id=instance_id, owner="alice", data={"status": "x"})
        return Page((event,))

    async def post_mortems(self, instance_id: UUID, limit: int = 10) -> list[Evidence]:
        self._read()
        return [FAILURE]

    async def fleet_events(self, which: FleetEventFilter) -> Page[NamedEvent]:
        self._read()
        self.asked.append(which)
        return Page(tuple(self.fleet_events_), "more")

    async def audit(self, which: AuditFilter) -> Page[StoredAudit]:
        self._read()
        self.asked.append(which)
        return Page(tuple(self.audit_), "more")

    async def incarnations(self, instance_id: UUID, which: IncarnationFilter) -> Page[Incarnation]:
        self._read()
        self.asked.append(which)
        return Page(tuple(self.incarnations_))

    async def ping(self) -> None:
        if self.frozen is not None:
            await self.frozen.wait()
        self._read()

    def statistics(self) -> StoreStatistics:
        return StoreStatistics(
            available=not self.away,
            writable=not self.away,
            problem="gone" if self.away else None,
            away_since=None,
            calls=1,
            failures=0,
            busy=0,
            listening=True,
        )


@frozen(kw_only=True)
class FakeCacheStatistics:
    available: bool = True


@define(eq=False)
class FakeCache:
    listings: dict[tuple[UUID, Section], Listing] = field(factory=dict)
    available: bool = True

    async def get_listing(self, instance_id: UUID, section: Section) -> Listing | None:
        return self.listings.get((instance_id, section))

    def statistics(self) -> FakeCacheStatistics:
        return FakeCacheStatistics(available=self.available)


class ApiJournal(FakeJournal):
    async def flush(self, timeout_s: float) -> bool:
        return True

    def statistics(self) -> JournalStatistics:
        return JournalStatistics(
            rows=0, size_bytes=0, written=5, shed={"logs": 2}, refused=1, cut=0, failures=0, oldest_s=0.0
        )


@frozen(kw_only=True)
class FakeSpawnerStatistics:
    jobs: int = 1
    spawned: int = 2
    orphans: int = 0
    orphans_killed: int = 3
    restarts: int = 0


class FakeSpawner:
    """On a host without bubblewrap, whose control groups hold memory but not CPU time."""

    features = Features(
        levels=(
            Level("process", available=True),
            Level("confined", available=True),
            Level(
                "namespaced", available=False, why="bubblewrap is not installed", unlock="apt-get install bubblewrap"
            ),
        ),
        landlock=7,
        hierarchy=Hierarchy("cgroup2", memory="/g", processes="/g", accounting="/g", freezer="/g"),
    )

    def statistics(self) -> FakeSpawnerStatistics:
        return FakeSpawnerStatistics()


@define
class FakeEgress:
    restarts: int = 0


class FakeRotation:
    """The key was replaced, or another rotation is under way."""

    busy: bool = False

    async def rotate(self) -> Rotated:
        if self.busy:
            raise Conflict("the encryption key is being replaced already")
        return Rotated(key_id="0b" * 8, previous_key_id="0a" * 8, boxes=3)


@define(eq=False)
class Api:
    """A running API, and a client for it. Alice has `memory` and `files`, bob has `memory` too."""

    client: httpx.AsyncClient
    folder: Path
    port: int
    services: Services
    supervisor: ApiSupervisor
    store: FakeStore
    deployer: FakeDeployer
    cache: FakeCache

    @property
    def files(self) -> list[Path]:
        """All that was kept of uploads."""
        return [path for path in self.folder.glob("uploads/**/*") if not path.is_dir()]

    async def ask(
        self, method: str, path: str, *, token: str | None = TOKENS[Role.DEPLOYER], **more: Any
    ) -> httpx.Response:
        """Send one request; without another word it is alice's, as deployer."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers.setdefault("Authorization", f"Bearer {token}")
        return await self.client.request(method, path, headers=headers, **more)

    async def admin(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.ask(method, path, token=TOKENS[Role.ADMIN], **more)

    def named(self, owner: str, name: str) -> ApiRunner:
        return next(r for r in self.supervisor.runners() if (r.instance.owner, r.instance.name) == (owner, name))


NOWHERE = Path("/nonexistent")


def make_api_services(folder: Path = NOWHERE, **settings: Any) -> Services:
    """`folder` is where uploads go. With an issuer among the settings its keys are those of `oidc_issuer`."""
    config = Config(**{"rate_limit_rps": 0, **settings})
    supervisor = ApiSupervisor()
    supervisor.add("memory", "alice", labels={"team": "docs", "tier": "1"})
    supervisor.add("files", "alice", state=State.STOPPED, desired=Desired.STOPPED, spec=make_spec(language="python"))
    supervisor.add("memory", "bob")
    users = [User(name=n, role=r) for n, r in (("alice", Role.DEPLOYER), ("bob", Role.DEPLOYER), ("root", Role.ADMIN))]
    tokens = [make_token(text, "root" if role is Role.ADMIN else "alice", role) for role, text in TOKENS.items()]
    tokens.append(make_token(BOB, "bob", Role.DEPLOYER))
    table: TokenTable = make_tokens()
    table.load(users, tokens)
    table.issuer = make_issuer(config)
    store = cast("Any", FakeStore({u.name: u for u in users}, {t.id: t for t in tokens}))
    inbox = Inbox(Uploads(folder / "uploads"), store, folder / "scratch")
    return Services(
        config=config,
        home=cast("Any", None),
        store=store,
        journal=cast("Any", ApiJournal()),
        cache=cast("Any", FakeCache()),
        hub=Hub(max_bytes=64 * 2**20),
        supervisor=cast("Any", supervisor),
        deployer=cast("Any", FakeDeployer(supervisor, inbox)),
        installs=cast("Any", None),
        toolchain=Toolchain(path="/usr/bin:/bin", tools={"python": sys.executable, "go": None}),
        tokens=table,
        spawner=cast("Any", FakeSpawner()),
        egress=cast("Any", FakeEgress()),
        rotation=cast("Any", FakeRotation()),
        version="1.2.3",
        started_at=trio.current_time(),
    )


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Api]:
    """The API on a real socket of the loopback interface."""
    async with _furnished(settings) as (services, folder), _client(services, folder) as api:
        yield api


@asynccontextmanager
async def _furnished(settings: dict[str, Any]) -> AsyncIterator[tuple[Services, Path]]:
    """With a folder, and a real store of installs in it."""
    with TemporaryDirectory(prefix="corral-test-") as folder:
        services = make_api_services(Path(folder), **settings)
        async with trio.open_nursery() as nursery:
            services.installs = await InstallStore.open(Path(folder) / "store", 2**30, nursery)
            yield services, Path(folder)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _client(services: Services, folder: Path) -> AsyncIterator[Api]:
    async with running(services, app=cast("App", make_quart(services))) as server:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client:
            with trio.fail_after(20):
                yield _api(client, services, folder, server.port)


@asynccontextmanager
async def in_process(**settings: Any) -> AsyncIterator[Api]:
    """The API without sockets, for tests of many requests."""
    async with _furnished(settings) as (services, folder), _without_sockets(services, folder) as api:
        yield api


@asynccontextmanager
async def _without_sockets(services: Services, folder: Path) -> AsyncIterator[Api]:
    transport = httpx.ASGITransport(app=cast("Any", make_app(services)))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=10) as client:
        with trio.fail_after(30):
            yield _api(client, services, folder)


def _api(client: httpx.AsyncClient, services: Services, folder: Path, port: int = 0) -> Api:
    return Api(
        folder=folder,
        client=client,
        port=port,
        services=services,
        supervisor=cast("ApiSupervisor", services.supervisor),
        store=cast("FakeStore", services.store),
        deployer=cast("FakeDeployer", services.deployer),
        cache=cast("FakeCache", services.cache),
    )


def problem_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document that the answer must be."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["code"] == code
    assert document["type"] == f"/problems/{code}"
    assert document["request_id"] == response.headers["x-request-id"]
    return document


def pointers(error: InvalidRequest | dict[str, Any]) -> set[str]:
    errors = error["errors"] if isinstance(error, dict) else [{"pointer": e.pointer} for e in error.errors]
    return {wrong["pointer"] for wrong in errors}
