"""Every setting of the control plane: variable, type, default, unit and meaning, in one class.

`load(environ)` is pure: it returns a frozen `Config` or raises `ConfigError`
that names every wrong variable at once. An empty value counts as unset. Secrets
may come from files, `NAME_FILE`: `with_files` fills them in. The field's
metadata is what `.env.example` and the reference page are checked against.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from controlplane.core import variables
from controlplane.core.urls import check_safe_url, origin_of

JWT_ALGORITHMS = ("HS256", "HS384", "HS512")
ISOLATION_LEVELS = ("process", "confined", "namespaced")
FILE_SUFFIX = "_FILE"
"""`SECRET_KEY_FILE` names a file that holds SECRET_KEY; so for every secret."""
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
"""OpenTelemetry's names."""


class ConfigError(Exception):
    """The environment cannot be used; `problems` has one sentence per variable. Exit status 78."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def default_home() -> Path:
    """`/var/lib/corral` as root, else `~/.local/share/corral`: where all data is kept.

    Raises:
        ConfigError: the user has no home folder, as in a container that runs as an id without an account.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/corral")
    try:
        return Path.home() / ".local/share/corral"
    except RuntimeError:
        raise ConfigError(["CORRAL_HOME: must be set: this user has no home folder"]) from None


def _var(name: str, parse: Callable[[str], Any], default: Any, doc: str, *, secret: bool = False) -> Any:
    factory = attrs.Factory(default) if callable(default) else default
    return attrs.field(
        default=factory, repr=not secret, metadata={"name": name, "parse": parse, "doc": doc, "secret": secret}
    )


@frozen(kw_only=True)
class Config:
    """The control plane's settings, as read once at start."""

    host: str = _var("HOST", variables.text, "127.0.0.1", "Address to listen on.")
    port: int = _var("PORT", variables.port, 8000, "TCP port to listen on; 0 takes any free one.")
    node_url: str | None = _var(
        "NODE_URL",
        variables.http_url,
        None,
        "Where other control planes on the same database reach this one; unset: HOST (or this machine's name) and PORT.",
    )
    home: Path = _var(
        "CORRAL_HOME", variables.path, default_home, "Folder of all data: keys, databases, instances' files."
    )
    database_url: str | None = _var(
        "DATABASE_URL", variables.text, None, "Postgres to use; unset: an embedded one is started.", secret=True
    )
    redis_url: str | None = _var(
        "REDIS_URL", variables.text, None, "Redis to use; unset: an embedded Valkey is started.", secret=True
    )
    secret_key: str | None = _var(
        "SECRET_KEY",
        variables.secret,
        None,
        "Root of the encryption and JWT keys, 32 bytes or more; unset: generated and kept in CORRAL_HOME.",
        secret=True,
    )
    secret_key_previous: str | None = _var(
        "SECRET_KEY_PREVIOUS",
        variables.secret,
        None,
        "The SECRET_KEY before, whose values can still be read; may go once `corral secret rotate-key` has run.",
        secret=True,
    )
    jwt_algorithm: str = _var(
        "JWT_ALGORITHM", variables.one_of(*JWT_ALGORITHMS), "HS256", "The only JWT algorithm accepted."
    )
    admin_token: str | None = _var(
        "ADMIN_TOKEN",
        variables.secret,
        None,
        "The administrator's token, 32 bytes or more; unset: generated, in CORRAL_HOME/credentials.",
        secret=True,
    )
    public_url: str | None = _var(
        "PUBLIC_URL",
        origin_of,
        None,
        "Where clients reach this server, as in https://mcp.example.com; unset: as each request's Host says.",
    )
    oidc_issuer: str | None = _var(
        "OIDC_ISSUER", check_safe_url, None, "OpenID Connect issuer whose JWTs are accepted; unset: none."
    )
    oidc_audience: str | None = _var(
        "OIDC_AUDIENCE",
        variables.text,
        None,
        "What their aud must name; PUBLIC_URL, and an endpoint's own URL, do as well.",
    )
    jwks_url: str | None = _var(
        "JWKS_URL",
        check_safe_url,
        None,
        "Where the issuer's keys are; unset: as its /.well-known/openid-configuration says.",
    )
    oidc_user_claim: str = _var(
        "OIDC_USER_CLAIM", variables.text, "sub", "Claim with the name of a user that exists here."
    )
    oidc_role_claim: str = _var(
        "OIDC_ROLE_CLAIM",
        variables.text,
        "role",
        "Claim with a role, or a list with one among others; dots lead into nested ones.",
    )
    oidc_algorithms: tuple[str, ...] = _var(
        "OIDC_ALGORITHMS",
        variables.oidc_algorithms,
        ("RS256", "ES256"),
        "Algorithms of theirs that are accepted, asymmetric ones.",
    )
    allowed_hosts: tuple[str, ...] = _var(
        "ALLOWED_HOSTS", variables.words, (), "Host names served besides the loopback ones."
    )
    allowed_origins: tuple[str, ...] = _var(
        "ALLOWED_ORIGINS", variables.words, (), "Browser origins served besides Corral's own."
    )
    trusted_proxies: tuple[str, ...] = _var(
        "TRUSTED_PROXIES", variables.words, (), "Addresses or networks whose X-Forwarded-* headers count."
    )
    min_isolation: str = _var(
        "MIN_ISOLATION",
        variables.one_of(*ISOLATION_LEVELS),
        "process",
        "A spec that asks for a weaker level is refused.",
    )
    auto_isolation: str = _var(
        "AUTO_ISOLATION",
        variables.one_of(*ISOLATION_LEVELS),
        ISOLATION_LEVELS[-1],
        "The strongest level that a spec with isolation auto gets, where the host can give it.",
    )
    allowed_mounts: tuple[Path, ...] = _var(
        "ALLOWED_MOUNTS", variables.paths, (), "Folders of this host below which specs may ask for mounts."
    )
    egress_allow_private: tuple[str, ...] = _var(
        "EGRESS_ALLOW_PRIVATE",
        variables.hosts_with_ports,
        (),
        "Private and loopback places, as host:port, that instances in namespaces may connect to.",
    )
    rate_limit_rps: int = _var(
        "RATE_LIMIT_RPS",
        variables.count(),
        100,
        "Calls per second and token, a user's JWTs counting as one; 0: no limit.",
    )
    deploys_per_minute: int = _var("DEPLOYS_PER_MINUTE", variables.count(1), 10, "Deploys per minute and owner.")
    auth_failures_per_minute: int = _var(
        "AUTH_FAILURES_PER_MINUTE", variables.count(1), 30, "Wrong tokens per minute and address before 429."
    )
    sample_interval_s: float = _var("SAMPLE_INTERVAL", variables.seconds, 1.0, "Seconds between resource samples.")
    log_level: str = _var("LOG_LEVEL", variables.one_of(*LOG_LEVELS), "INFO", "Detail of the control plane's own log.")
    log_format: str = _var(
        "LOG_FORMAT",
        variables.one_of("text", "json"),
        "text",
        "Form of the control plane's own log: text on standard error, or a JSON object a line on standard output.",
    )
    log_dir: Path | None = _var(
        "LOG_DIR", variables.path, None, "Folder for the control plane's log files as well; unset: none are written."
    )
    otel_endpoint: str | None = _var(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        variables.receiver_url,
        None,
        "Where traces are sent by OTLP over HTTP, as in http://127.0.0.1:4318; unset: none are made.",
    )
    otel_headers: tuple[tuple[str, str], ...] = _var(
        "OTEL_EXPORTER_OTLP_HEADERS",
        variables.pairs,
        (),
        "Headers sent along, as name=value with a comma between two.",
        secret=True,
    )
    otel_service_name: str = _var("OTEL_SERVICE_NAME", variables.text, "corral", "This control plane's name in traces.")
    otel_resource_attributes: tuple[tuple[str, str], ...] = _var(
        "OTEL_RESOURCE_ATTRIBUTES",
        variables.pairs,
        (),
        "What else to say of it in traces, as name=value with a comma between two.",
    )
    otel_sampler: str = _var(
        "OTEL_TRACES_SAMPLER", variables.one_of(*SAMPLERS), "parentbased_always_on", "Which traces are kept."
    )
    otel_sampler_arg: float = _var(
        "OTEL_TRACES_SAMPLER_ARG", variables.ratio, 1.0, "The share that the ratio samplers keep, 0 to 1."
    )
    max_instances_per_user: int = _var(
        "MAX_INSTANCES_PER_USER", variables.count(1), 10, "Instances that one owner may have."
    )
    max_memory_mb_per_user: int = _var(
        "MAX_MEMORY_MB_PER_USER",
        variables.count(),
        0,
        "Memory limits of an owner's instances that are to run, added up, MiB; 0: no limit.",
    )
    max_cpu_seconds_per_day: int = _var(
        "MAX_CPU_SECONDS_PER_DAY",
        variables.count(),
        0,
        "CPU seconds of an owner's instances per day (UTC) before calls are refused; 0: no limit.",
    )
    max_calls_per_day: int = _var(
        "MAX_CALLS_PER_DAY", variables.count(), 0, "Calls per owner and day (UTC); 0: no limit."
    )
    max_mb_per_day: int = _var(
        "MAX_MB_PER_DAY",
        variables.count(),
        0,
        "Requests and answers of an owner's calls per day (UTC), MiB; 0: no limit.",
    )
    max_memory_mb: int = _var(
        "MAX_MEMORY_MB", variables.count(16), 1024, "Ceiling and default of an instance's memory, MiB."
    )
    max_cpu_percent: int = _var(
        "MAX_CPU_PERCENT", variables.count(1), 80, "Ceiling and default of an instance's CPU; 100 is one core."
    )
    max_disk_usage_mb: int = _var(
        "MAX_DISK_USAGE_MB", variables.count(1), 2048, "Ceiling and default of an instance's disk, MiB."
    )
    max_processes: int = _var(
        "MAX_PROCESSES", variables.count(1), 256, "Ceiling and default of an instance's processes and threads."
    )
    max_open_files: int = _var(
        "MAX_OPEN_FILES", variables.count(64), 1024, "Ceiling and default of open files per process."
    )
    max_log_kb_per_s: int = _var(
        "MAX_LOG_KB_PER_S",
        variables.count(1),
        128,
        "Ceiling and default of what is kept of an instance's output, KiB a second.",
    )
    max_call_timeout_s: float = _var(
        "MAX_CALL_TIMEOUT", variables.seconds, 300.0, "Longest call timeout that a spec or call may ask for, seconds."
    )
    calls_in_flight: int = _var(
        "CALLS_IN_FLIGHT", variables.count(1), 64, "Calls in flight per instance before 503 busy."
    )
    start_concurrency: int = _var(
        "START_CONCURRENCY",
        variables.count(1),
        lambda: max(2, os.cpu_count() or 2),
        "Instances that start at the same time, and one more that somebody waits for; builds, one for each core, come on top.",
    )
    start_timeout_s: float = _var(
        "START_TIMEOUT", variables.seconds, 60.0, "Seconds an instance may take from spawn to handshake."
    )
    build_timeout_s: float = _var(
        "BUILD_TIMEOUT", variables.seconds, 600.0, "Seconds that fetching, installing and building may take."
    )
    build_memory_mb: int = _var(
        "BUILD_MEMORY_MB",
        variables.count(64),
        4096,
        "Memory of all processes of one build together, where the kernel can hold it, MiB.",
    )
    fetch_timeout_s: float = _var(
        "FETCH_TIMEOUT", variables.seconds, 120.0, "Seconds that fetching a repository or an archive may take."
    )
    max_connections: int = _var(
        "MAX_CONNECTIONS", variables.count(16), 2000, "Client connections at once; more are refused with 503."
    )
    buffer_max_mb: int = _var(
        "BUFFER_MAX_MB", variables.count(16), 256, "All event rings and subscriber queues together, MiB."
    )
    log_retention_days: int = _var("LOG_RETENTION_DAYS", variables.count(1), 7, "Days that instance logs are kept.")
    log_max_mb: int = _var("LOG_MAX_MB", variables.count(16), 1024, "Size of all instance logs kept, MiB.")
    metric_retention_days: int = _var(
        "METRIC_RETENTION_DAYS", variables.count(1), 2, "Days that resource samples are kept."
    )
    event_retention_days: int = _var("EVENT_RETENTION_DAYS", variables.count(1), 30, "Days that events are kept.")
    audit_retention_days: int = _var("AUDIT_RETENTION_DAYS", variables.count(1), 90, "Days that the audit log is kept.")
    audit_max_mb: int = _var("AUDIT_MAX_MB", variables.count(16), 256, "Size of the audit log that is kept, MiB.")
    source_allow_private: bool = _var(
        "SOURCE_ALLOW_PRIVATE",
        variables.flag,
        False,
        "Whether sources may be fetched from private, loopback and link-local addresses.",
    )
    source_allow_ssh: bool = _var(
        "SOURCE_ALLOW_SSH", variables.flag, False, "Whether repositories may be fetched over ssh as well."
    )
    store_max_mb: int = _var(
        "STORE_MAX_MB", variables.count(), 10_240, "Size of all installs kept, MiB; above it those that nobody uses go."
    )
    child_env_pass: tuple[str, ...] = _var(
        "CHILD_ENV_PASS",
        variables.words,
        (
            "NODE_EXTRA_CA_CERTS",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "REQUESTS_CA_BUNDLE",
            "HTTPS_PROXY",
            "HTTP_PROXY",
            "NO_PROXY",
        ),
        "Names of the control plane's own variables that instances get too.",
    )


def with_files(environ: Mapping[str, str], read: Callable[[Path], str]) -> dict[str, str]:
    """Fill in the secrets that are not set from the files that `NAME_FILE` names. Pure but for `read`.

    Args:
        environ: Environment variables.
        read: What a file holds; raises OSError or ValueError.

    Raises:
        ConfigError: one or more files cannot be read, or are empty: an operator who names one means it.
    """
    filled = dict(environ)
    problems: list[str] = []
    for attribute in attrs.fields(Config):
        name = attribute.metadata["name"]
        named = environ.get(name + FILE_SUFFIX, "").strip()
        if not attribute.metadata["secret"] or not named or environ.get(name, "").strip():
            continue
        try:
            filled[name] = read(variables.path(named)).strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            problems.append(f"{name}{FILE_SUFFIX}: {named} cannot be read: {reason}")
        else:
            if not filled[name]:
                problems.append(f"{name}{FILE_SUFFIX}: {named} is empty")
    if problems:
        raise ConfigError(problems)
    return filled


def load(environ: Mapping[str, str]) -> Config:
    """Read a `Config` from environment variables.

    Raises:
        ConfigError: one or more variables have a value that cannot be used.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for attribute in attrs.fields(Config):
        name = attribute.metadata["name"]
        raw = environ.get(name, "").strip()
        if not raw:
            continue
        try:
            values[attribute.name] = attribute.metadata["parse"](raw)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ConfigError(problems)
    config = Config(**values)
    problems = _together(config)
    if problems:
        raise ConfigError(problems)
    return config


def _together(config: Config) -> list[str]:
    """What is wrong with values that are each right."""
    problems: list[str] = []
    if config.oidc_issuer is None:
        given = {"JWKS_URL": config.jwks_url, "OIDC_AUDIENCE": config.oidc_audience}
        problems += [
            f"{name}: needs OIDC_ISSUER, which a token's iss must be" for name, value in given.items() if value
        ]
    elif config.oidc_audience is None and config.public_url is None:
        problems.append("OIDC_ISSUER: needs OIDC_AUDIENCE or PUBLIC_URL, one of which a token's aud must name")
    return problems
