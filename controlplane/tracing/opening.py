"""Builds the tracer from the settings. Loaded only where an endpoint is set."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import attrs

from controlplane.config import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

    from controlplane.config import Config
    from controlplane.tracing.export import OtlpTracer

EXPORT_TIMEOUT_S = 5.0
"""For one request with its retries; the backlog fills meanwhile."""
TRACES_PATH = "/v1/traces"


def open_tracer(config: Config, version: str) -> OtlpTracer:
    """Begin to make and deliver spans.

    Raises:
        ConfigError: OpenTelemetry is not installed, or refuses the settings.
    """
    assert config.otel_endpoint is not None, "asked for only where there is one"
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

        from controlplane.tracing.backlog import Backlog  # noqa: PLC0415
        from controlplane.tracing.export import OtlpTracer, Readable  # noqa: PLC0415
    except ImportError as missing:
        raise ConfigError(
            [f"OTEL_EXPORTER_OTLP_ENDPOINT: needs the packages of corral[otel] ({missing.name} is missing)"]
        ) from missing
    exporter = OTLPSpanExporter(
        endpoint=config.otel_endpoint.rstrip("/") + TRACES_PATH,
        headers=dict(config.otel_headers),
        timeout=EXPORT_TIMEOUT_S,
    )
    resource = Resource(
        {
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "opentelemetry",
            "service.version": version,
            "service.instance.id": str(uuid4()),
            **dict(config.otel_resource_attributes),
            "service.name": _service_name(config),
        }
    )
    receiver = urlsplit(config.otel_endpoint)
    backlog = Backlog(exporter, Readable(resource, version), receiver.netloc)
    return OtlpTracer(sampler_of(config), backlog, config.otel_sampler.startswith("parentbased_"))


def _service_name(config: Config) -> str:
    """A name that is set wins over the attribute, which wins over the default (OpenTelemetry, resource SDK)."""
    default = attrs.fields(type(config)).otel_service_name.default
    if config.otel_service_name != default:
        return config.otel_service_name
    return dict(config.otel_resource_attributes).get("service.name") or str(default)


def sampler_of(config: Config) -> Sampler:
    """The sampler that the settings name."""
    from opentelemetry.sdk.trace import sampling  # noqa: PLC0415

    ratio = config.otel_sampler_arg
    samplers: dict[str, Sampler] = {
        "always_on": sampling.ALWAYS_ON,
        "always_off": sampling.ALWAYS_OFF,
        "traceidratio": sampling.TraceIdRatioBased(ratio),
        "parentbased_always_on": sampling.DEFAULT_ON,
        "parentbased_always_off": sampling.DEFAULT_OFF,
        "parentbased_traceidratio": sampling.ParentBasedTraceIdRatio(ratio),
    }
    return samplers[config.otel_sampler]
