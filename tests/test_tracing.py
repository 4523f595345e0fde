"""Spans are made, sampled, delivered and lost as the settings say; nothing blocks, nothing grows."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from controlplane import tracing
from controlplane.config import Config, ConfigError, load
from controlplane.core.tracecontext import TraceContext
from controlplane.tracing import backlog, opening
from tests.otlp import receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.otlp import Receiver

LIMIT_S = 20


@pytest.fixture
def receiving() -> Iterator[Receiver]:
    with receiver() as kept:
        yield kept


@pytest.fixture
async def quick(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Spans go out at once, and what the receiver refuses is given up at once."""
    monkeypatch.setattr(backlog, "EVERY_S", 0.05)
    monkeypatch.setattr(opening, "EXPORT_TIMEOUT_S", 0.2)
    yield
    await tracing.stop()


def config(url: str, **more: str) -> Config:
    return load({"OTEL_EXPORTER_OTLP_ENDPOINT": url, **more})


async def wait_for(condition: Callable[[], object]) -> None:
    with trio.fail_after(LIMIT_S):
        while not condition():
            await trio.sleep(0.01)


# -- off


async def test_without_an_endpoint_no_span_is_made() -> None:
    tracing.start(Config(), "1")

    assert not tracing.is_on
    assert tracing.begin("x").context is None


def test_without_an_endpoint_nothing_of_opentelemetry_is_needed() -> None:
    """It may be loaded all the same: the Redis client looks for it."""
    script = "import sys; sys.modules['opentelemetry'] = sys.modules['requests'] = None; import controlplane.app"

    subprocess.run([sys.executable, "-c", script], check=True)


async def test_an_endpoint_without_the_packages_is_refused_with_a_word_on_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    with pytest.raises(ConfigError, match=r"corral\[otel\]"):
        tracing.start(config("http://127.0.0.1:9"), "1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:planted@collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "planted-secret"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_no_secret_with_it(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({name: value})

    assert str(caught.value).startswith(name)
    assert "planted" not in str(caught.value)


# -- on


async def test_spans_arrive_with_their_parents_links_attributes_and_ends(receiving: Receiver, quick: None) -> None:
    settings = {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc,x-tenant=t",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    tracing.start(config(receiving.url, **settings), "1.2.3")
    asked = TraceContext("a" * 32, "b" * 16, 1, "vendor=1", is_remote=True)

    outer = tracing.begin("outer", kind="server", parent=asked, links=[TraceContext("c" * 32, "d" * 16, 1), None])
    inner = tracing.begin("inner", kind="client", parent=outer.context, attributes={"n": 1, "text": "x" * 5000})
    inner.end("timeout", "took too long")
    outer.end()
    await wait_for(lambda: tracing.statistics().exported == 2)

    (seen,) = receiving.named("outer")
    assert (seen.kind, seen.trace_id, seen.parent) == ("server", "a" * 32, "b" * 16)
    assert (seen.state, seen.links, seen.failed) == ("vendor=1", ("d" * 16,), False)
    (within,) = receiving.named("inner")
    assert (within.kind, within.parent, within.failed) == ("client", seen.span_id, True)
    assert within.attributes == {"n": 1, "text": "x" * 1024, "error.type": "timeout"}
    assert receiving.paths == {"/v1/traces"}
    assert receiving.headers[0]["authorization"] == "Bearer abc"
    resource = receiving.resources[0]
    assert resource["service.name"] == "corral"
    assert resource["service.version"] == "1.2.3"
    assert resource["deployment.environment.name"] == "test"
    assert tracing.statistics().dropped == 0


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"OTEL_SERVICE_NAME": "mine", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=other"}, "other"),
    ],
)
async def test_the_service_is_called_as_the_variables_say(
    settings: dict[str, str], name: str, receiving: Receiver, quick: None
) -> None:
    tracing.start(config(receiving.url, **settings), "1")
    tracing.begin("x").end()
    await wait_for(lambda: receiving.spans)

    assert receiving.resources[0]["service.name"] == name


@pytest.mark.parametrize(
    ("sampler", "ratio", "flags", "is_kept"),
    [
        ("always_on", "1", 0, True),
        ("always_off", "1", 1, False),
        ("traceidratio", "0", 1, False),
        ("traceidratio", "1", 0, True),
        ("parentbased_always_on", "1", 0, False),
        ("parentbased_always_on", "1", 1, True),
        ("parentbased_always_off", "1", 1, True),
        ("parentbased_always_off", "1", None, False),
        ("parentbased_traceidratio", "0", None, False),
        ("parentbased_traceidratio", "0", 1, True),
    ],
)
def test_a_sampler_keeps_what_its_name_says(sampler: str, ratio: str, flags: int | None, is_kept: bool) -> None:
    from controlplane.tracing.export import OtlpTracer

    settings = config("http://127.0.0.1:9", OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=ratio)
    tracer = opening.open_tracer(settings, "1")
    try:
        assert isinstance(tracer, OtlpTracer)
        parent = None if flags is None else TraceContext("a" * 32, "b" * 16, flags)
        span = tracer.begin("x", "internal", parent, [], {})
        assert span.context is not None
        assert span.context.is_sampled is is_kept
        assert (span.context.trace_id == "a" * 32) is (parent is not None)
    finally:
        tracer.backlog.close(1)


async def test_a_span_within_a_block_ends_as_the_block_does(receiving: Receiver, quick: None) -> None:
    tracing.start(config(receiving.url), "1")
    with pytest.raises(ValueError, match="no"), tracing.during("block"):
        raise ValueError("no")
    await wait_for(lambda: receiving.spans)

    assert receiving.spans[0].attributes["error.type"] == "valueerror"


# -- lost


async def test_a_receiver_that_is_away_costs_its_spans_and_one_line(
    quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        tracing.start(config("http://127.0.0.1:9"), "1")
        for number in range(3):
            tracing.begin("x").end()
            await wait_for(lambda number=number: tracing.statistics().dropped == number + 1)

    assert tracing.statistics() == tracing.SpanCounts(dropped=3)
    assert [record.getMessage() for record in caplog.records] == [
        "127.0.0.1:9 takes no spans: they are dropped, and counted in corral_spans_total"
    ]


async def test_a_receiver_that_is_back_gets_spans_again(
    receiving: Receiver, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    receiving.status = 400
    tracing.start(config(receiving.url), "1")
    tracing.begin("lost").end()
    await wait_for(lambda: tracing.statistics().dropped)
    receiving.status = 200
    tracing.begin("kept").end()
    await wait_for(lambda: receiving.spans)
    await wait_for(lambda: tracing.statistics().exported)

    assert [span.name for span in receiving.spans] == ["kept"]
    assert caplog.records[-1].getMessage().endswith("takes spans again; 1 were dropped")


async def test_a_full_backlog_drops_what_comes_and_never_waits(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "BACKLOG_MAX", 10)
    monkeypatch.setattr(backlog, "EVERY_S", 60.0)
    tracing.start(config("http://127.0.0.1:9"), "1")

    for _ in range(25):
        tracing.begin("x").end()

    assert tracing.statistics().dropped == 15


async def test_an_end_delivers_what_is_left(receiving: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "EVERY_S", 60.0)
    tracing.start(config(receiving.url), "1")
    tracing.begin("last").end()

    with trio.fail_after(LIMIT_S):
        await tracing.stop()

    assert [span.name for span in receiving.spans] == ["last"]
    assert not tracing.is_on


async def test_an_end_waits_no_longer_than_its_bound_for_a_receiver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "EVERY_S", 60.0)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")  # accepts, and never answers
    port = listeners[0].socket.getsockname()[1]
    tracing.start(config(f"http://127.0.0.1:{port}"), "1")
    tracing.begin("last").end()

    with trio.fail_after(3):
        await tracing.stop()
    await listeners[0].aclose()
