"""The composition root: opens every part in order, and closes them in reverse.

    home → spawner → egress → Postgres and Redis → store, cache → journal, hub →
    supervisor, deployer → front door

The root nursery is ours; the HTTP server is one task in it. A part that fails
ends the whole program with status 70 rather than leave a server that answers
while nothing behind it lives.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import trio
import trio_asyncio
from attrs import define, field

from controlplane import administrator, banner, replacement, systemd, takeover, tracing
from controlplane.bus import Bus, channel_of, open_bus, seal_of
from controlplane.cache import open_cache
from controlplane.cluster.address import node_url
from controlplane.cluster.opening import open_membership
from controlplane.deploy import housekeeping, leftovers
from controlplane.deploy.build.opening import make_builds
from controlplane.deploy.build.workplace import BuildHost
from controlplane.deploy.deployer import Deployer
from controlplane.deploy.inbox import Inbox
from controlplane.deploy.installs.store import InstallStore
from controlplane.deploy.isolation import HostLevels
from controlplane.deploy.prepare import HostPrepare
from controlplane.deploy.source.uploads import Uploads
from controlplane.deploy.toolchain import build
from controlplane.egress.client import open_egress
from controlplane.embedded import open_services
from controlplane.home import open_home
from controlplane.hub import Hub
from controlplane.rotation import KeyRotation
from controlplane.secretbox import SecretBox
from controlplane.spawn.client import open_spawner
from controlplane.spawn.uids import open_uid_pool
from controlplane.store.journal import Journal
from controlplane.store.postgres import open_store
from controlplane.supervise.accounts import Accounts, of_operator
from controlplane.supervise.runner import Surroundings
from controlplane.supervise.sampler import Sampler
from controlplane.supervise.scheduler import StartScheduler, available_memory_mb
from controlplane.supervise.supervisor import Supervisor
from controlplane.upkeep import Upkeep
from controlplane.web import door, service_watch
from controlplane.web.app import make_app
from controlplane.web.auth import TokenTable
from controlplane.web.listeners import listen
from controlplane.web.mcp.legacy import SESSIONS_SHARE
from controlplane.web.oidc import fetching
from controlplane.web.oidc.issuer import Issuer
from controlplane.web.services import Services

if TYPE_CHECKING:
    import socket

    from controlplane.cluster.membership import Membership
    from controlplane.cluster.roster import Roster
    from controlplane.config import Config
    from controlplane.home import Home
    from controlplane.store.base import Store

HARD_END_S = 9.5
"""From the first signal; whatever hangs then is left to the spawner, which ends every process."""
FLUSH_S = 1.0
GARBAGE_MAX = 10_000
"""Objects that come to be before garbage is looked for: calls in flight hold thousands, and are none."""
log = logging.getLogger("corral")


async def run(config: Config, *, hot: bool = True, replace: bool = False) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        hot: Answer plain calls in the hot lane; off, everything goes through Hypercorn.
        replace: Take over from the control plane that runs on this home, if one does.

    Raises:
        HomeBusy, ConfigError, StorageUnavailable: it cannot start; the message says what to do.
    """
    began = trio.current_time()
    life = _Life()
    with life.scope:
        await _live(config, life, began, hot, replace)


@define(eq=False)
class _Life:
    """From start to stop. A stop that is asked for breaks off a start, and ends a life that serves in order."""

    scope: trio.CancelScope = field(factory=trio.CancelScope)
    asked_to_stop: trio.Event = field(factory=trio.Event)
    serves: bool = False

    def stop(self) -> None:
        self.asked_to_stop.set()
        if not self.serves:
            self.scope.cancel()


async def _live(config: Config, life: _Life, began: float, hot: bool, replace: bool) -> None:
    async with trio.open_nursery() as root, AsyncExitStack() as stack:
        await root.start(_heed_signals, life)
        activated = systemd.take_sockets(os.environ)  # before there are children
        if replace:
            home, listeners = await replacement.take(config, stack)
        else:
            home, listeners = stack.enter_context(open_home(config)), ()
        services, supervisor_nursery = await stack.enter_async_context(_open(config, home, began))
        listeners = listeners or activated or tuple(listen(config))
        entrance = await root.start(_serve, listeners, services, hot)
        membership = services.membership
        assert membership is not None
        membership.reached_at(node_url(config, entrance.addresses[0][1]))
        about = {"host": config.host, "version": services.version}
        await root.start(takeover.offer, home.run, home.admin_token, about, listeners, membership.expect_heir)
        _spare_collections()
        life.serves = True
        url = _url(config.host, entrance.addresses[0][1])
        home.write_credentials(url)
        _tell(config, services, url, trio.current_time() - began)
        systemd.tell(systemd.READY, f"STATUS=serves at {url}")
        await life.asked_to_stop.wait()
        systemd.tell(systemd.STOPPING)
        await _close(services, entrance, membership)
        supervisor_nursery.cancel_scope.cancel()
        root.cancel_scope.cancel()


def _tell(config: Config, services: Services, url: str, started_s: float) -> None:
    """That it serves, and where: for whoever is at the terminal, or for what reads the log."""
    if config.log_format == "json":  # standard output holds records then, and nothing else
        log.info("Corral %s serves at %s after %.1f s", services.version, url, started_s)
        return
    shown = banner.banner(
        version=services.version,
        url=url,
        credentials=services.home.credentials,
        started_s=started_s,
        services=services.embedded,
    )
    print(shown, flush=True)  # noqa: T201  (this is what a person at the terminal waits for)


def _spare_collections() -> None:
    """What a start leaves behind stays: looking through it again held every caller up for 50 ms, now and then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_MAX)


@asynccontextmanager
async def _open(config: Config, home: Home, began: float) -> AsyncIterator[tuple[Services, trio.Nursery]]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(trio_asyncio.open_loop())
        uids = stack.enter_context(open_uid_pool())
        spawner = await stack.enter_async_context(open_spawner(marker=home.owner_id, uids=uids))
        egress = await stack.enter_async_context(
            open_egress(
                spawner,
                environ=os.environ,
                on_refused=lambda *refusal: supervisor.egress_refused(*refusal),  # noqa: PLW0108  (it comes below)
            )
        )
        spawner.gatekeeper = egress
        backing = await stack.enter_async_context(open_services(config, home, spawner))
        secret_box = SecretBox(home.secret_key, home.previous_keys)
        store = await stack.enter_async_context(open_store(backing.database_url, secret_box))
        await store.check_keys()
        uploads = Uploads(home.path / "uploads")
        membership = await stack.enter_async_context(
            open_membership(
                config,
                home.owner_id,
                store,
                spawner,
                version("corral"),
                key=secret_box.peer_key,
                archives=uploads.names,
            )
        )
        cache = await stack.enter_async_context(open_cache(backing.redis_url))
        await administrator.ensure(store, home.admin_token, membership.roster)
        journal = Journal(store)
        hub = Hub(config.buffer_max_mb * 2**20 * (SESSIONS_SHARE - 1) // SESSIONS_SHARE, keep=journal.event)
        tokens = TokenTable(secret_box.jwt_key(config.jwt_algorithm), config.jwt_algorithm, Issuer.of_config(config))
        bus = await stack.enter_async_context(
            _relaying(hub, tokens, roster := membership.roster, store, secret_box, redis_url=backing.redis_url)
        )
        rotation = KeyRotation(
            home,
            secret_box,
            store,
            lambda: tokens.take_jwt_key(secret_box.jwt_key(config.jwt_algorithm)),
            has_others=lambda: len(roster.others()) > 0,
        )
        by_others = os.geteuid() == 0
        toolchain = await trio.to_thread.run_sync(
            lambda: build(home.path / "runtimes", by_others=by_others, host_path=os.environ.get("PATH", ""))
        )
        background = await stack.enter_async_context(trio.open_nursery())
        installs = await InstallStore.open(home.path / "store", config.store_max_mb * 2**20, background)
        environ = dict(os.environ)
        tracing.start(config, version("corral"))
        stack.push_async_callback(tracing.stop)
        host = BuildHost(config=config, spawner=spawner, uids=uids, toolchain=toolchain, environ=environ)
        builds = make_builds(host, installs, uploads, store)
        features = spawner.features
        levels = HostLevels.of(features)
        prepare = HostPrepare(
            config,
            home.instances,
            toolchain,
            uids,
            features.private_tmp,
            environ,
            builds,
            store,
            levels=levels,
            hierarchy=features.hierarchy,
        )
        around = Surroundings(
            config=config,
            version=version("corral"),
            spawner=spawner,
            prepare=prepare,
            scheduler=StartScheduler(config.start_concurrency, os.cpu_count(), available_memory_mb),
            journal=journal,
            hub=hub,
            cache=cache,
            groups=features.hierarchy,
            accounts=Accounts(of_operator(config), tokens.quotas_of),
        )
        fleet = await stack.enter_async_context(trio.open_nursery())
        supervisor = Supervisor(around, store, fleet, roster)
        upkeep = Upkeep(config, store, tokens, supervisor, journal)
        inbox = Inbox(uploads, store, home.path / "store/staging")
        services = Services(
            config=config,
            home=home,
            store=store,
            journal=journal,
            cache=cache,
            hub=hub,
            supervisor=supervisor,
            deployer=Deployer(config, store, cache, supervisor, inbox, levels=levels),
            installs=installs,
            toolchain=toolchain,
            tokens=tokens,
            rotation=rotation,
            spawner=spawner,
            egress=egress,
            version=around.version,
            started_at=began,
            accounts=around.accounts,
            embedded=backing.embedded,
            roster=roster,
            membership=membership,
            bus=bus,
        )
        sample = Sampler(supervisor, config.sample_interval_s).run
        for service in (journal.run, hub.run_heartbeats, sample, services.pulse.run, services.peers.run):
            background.start_soon(service)
        background.start_soon(service_watch.watch, services)
        await background.start(services.mcp.run)
        await membership.attach(upkeep)
        await upkeep.load()
        builds.hold(runner.instance for runner in supervisor.runners())
        background.start_soon(leftovers.collect, home.instances, store, lambda: supervisor.ids() | roster.ids())
        for service in (upkeep.run, rotation.run, partial(administrator.keep_tidy, store, home.admin_token, roster)):
            background.start_soon(service)
        background.start_soon(fetching.run, tokens.issuer, tokens.issuer_changed)
        background.start_soon(housekeeping.run, installs, inbox)
        yield services, fleet
        background.cancel_scope.cancel()


async def _serve(
    listeners: Sequence[socket.socket], services: Services, hot: bool, *, task_status: trio.TaskStatus[door.Door]
) -> None:
    await door.serve(listeners, make_app(services), services, hot=hot, task_status=task_status)


@asynccontextmanager
async def _relaying(
    hub: Hub, tokens: TokenTable, roster: Roster, store: Store, secret_box: SecretBox, *, redis_url: str
) -> AsyncIterator[Bus | None]:
    """Events go to and come from the other control planes, should there be any."""
    if roster.is_alone:
        yield None
        return
    key, database = secret_box.peer_key().encode(), await store.identity()
    async with open_bus(
        redis_url,
        hub,
        channel=channel_of(key, database),
        seal=seal_of(key, database),
        node_id=roster.node_id,
        knows=lambda name: tokens.user(name) is not None,
    ) as bus:
        yield bus


async def _close(services: Services, entrance: door.Door, membership: Membership) -> None:
    """Readiness off, streams end, calls finish, instances stop in parallel, the journal is written."""
    log.info("stopping")
    services.stopping = True
    membership.take_no_more()
    services.hub.close()
    services.mcp.close()
    async with trio.open_nursery() as nursery:  # an instance with calls in flight waits for their answers itself
        nursery.start_soon(entrance.drain)
        nursery.start_soon(services.supervisor.stop_all)
    services.audit.sweep(everything=True)
    for rest in services.accounts.take():
        services.journal.usage(rest)
    await services.journal.flush(FLUSH_S)
    if not services.supervisor.ids_left():
        await membership.release()


async def _heed_signals(life: _Life, *, task_status: trio.TaskStatus[None]) -> None:
    """The first SIGTERM or SIGINT stops in order, the second at once; SIGHUP is nothing to die of."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                continue
            if life.asked_to_stop.is_set():
                log.warning("a second signal: ending at once")
                os._exit(1)
            life.stop()
            # Not a Trio task: it must fire even if the loop is stuck.
            end = threading.Timer(HARD_END_S, _end_hard)
            end.daemon = True
            end.start()


def _end_hard() -> None:
    os.write(2, b"corral: the orderly stop took too long; ending hard\n")
    os._exit(1)


def _url(host: str, port: int) -> str:
    shown = "127.0.0.1" if host in ("", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"
