"""`corral doctor`: what this host and the control plane on it lack, each with the way to mend it.

Each check is a function that returns `Finding`s; the host's are in `hostchecks.py`. A check never raises and never
takes longer than its own bound. Only a `✗` fails the command: a `!` works, but worse than it could, and a `-` is
missed only by those who want it. What isolation there is, and what the languages can do, is the control plane's to
say, if it runs.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen

from controlplane.cli import hostchecks, isolationchecks, runtimechecks
from controlplane.cli.choosing import chosen_target
from controlplane.cli.client import Api
from controlplane.cli.exits import CommandFailed, Exit, program
from controlplane.cli.hostchecks import ABSENT, BAD, GOOD, POOR, Finding
from controlplane.cli.session import Session, json_option, pass_session
from controlplane.cli.target import home_of
from controlplane.wire.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SIGNS = {GOOD: ("✓", "green"), POOR: ("!", "bold yellow"), BAD: ("✗", "bold red"), ABSENT: ("-", "dim")}
SLOW_HEALTH_S = 2.0
"""`/health` promises an answer within this, whatever is down."""


@click.command(short_help="Check this host and the control plane, and how to mend them.")
@json_option
@pass_session
def doctor(session: Session, /) -> None:
    """Check this host, how far it can shut instances in, the languages that it can run, and the control plane.

    Says what is wrong, and how to mend it.

    Exits with 1 for any ✗.
    """
    sections: dict[str, list[Finding]] = {"Host": [], "Isolation": [], "Languages": [], "Control plane": []}
    with session.screen.busy("looking"):
        sections["Host"] = hostchecks.all_of_host(os.environ)
        sections["Control plane"], said = _control_plane(session.context)
        sections["Isolation"] = isolationchecks.isolation(said.isolation or isolationchecks.survey_here())
        sections["Languages"] = runtimechecks.runtimes(said.runtimes or runtimechecks.survey_here())
    findings = [finding for section in sections.values() for finding in section]
    if session.json:
        checks = [{"name": f.name, "verdict": f.verdict, "found": f.found, "fix": f.fix} for f in findings]
        session.screen.json_bytes(json.dumps({"checks": checks}).encode())
    else:
        _show(session, sections)
    if any(finding.verdict == BAD for finding in findings):
        raise click.exceptions.Exit(Exit.FAILED)


def _show(session: Session, sections: Mapping[str, Iterable[Finding]]) -> None:
    for title, findings in sections.items():
        session.screen.line((title, "bold"))
        for finding in findings:
            sign, style = SIGNS[finding.verdict]
            session.screen.line("  ", (sign, style), f" {finding.name:<16}", finding.found)
            if finding.fix:
                session.screen.line("    ", f"{'':<16}", ("→ ", "bold"), finding.fix)


@frozen
class Said:
    """What a control plane said of its host; None: there is none, or it is too old to say."""

    isolation: Mapping[str, Any] | None = None
    runtimes: Mapping[str, Any] | None = None


def _control_plane(context: str | None) -> tuple[list[Finding], Said]:
    """Ask the control plane how it is, and what it can run; one that does not run is no fault of the host."""
    try:
        api = Api(chosen_target(os.environ, context))
    except CommandFailed as failure:
        return [Finding("credentials", BAD, str(failure), failure.problem.hint)], Said()
    found = hostchecks.credentials(os.environ)
    said = Said()
    try:
        began = time.monotonic()
        health = api.get("/health").document
        found += _health(api, health, time.monotonic() - began)
        found += _stats(api.get("/stats").document)
        found += _nodes(_survey(api, "/nodes") or {})
        said = Said(_survey(api, "/isolation"), _survey(api, "/runtimes"))
    except CommandFailed as failure:
        found += _unreachable(api, failure)
    finally:
        api.close()
    return found, said


def _survey(api: Api, path: str) -> Mapping[str, Any] | None:
    try:
        document = api.get(path).document
    except CommandFailed:
        return None
    return document if isinstance(document, dict) else None


def _unreachable(api: Api, failure: CommandFailed) -> list[Finding]:
    if failure.exit_code is Exit.NO_CONNECTION:
        found = f"none at {api.target.url}"
        return [
            Finding("running", POOR, found, f"{program()} up"),
            *hostchecks.services(os.environ),
            hostchecks.leftovers(home_of(os.environ)),
        ]
    if failure.document is not None:
        document = json.loads(failure.document)
        if isinstance(document, dict) and "services" in document:  # /health answers 503 with its own document
            return _health(api, document, 0.0)
    return [Finding("answer", BAD, f"{failure.problem.title}: {failure}", failure.problem.hint)]


def _health(api: Api, health: Mapping[str, Any], took_s: float) -> list[Finding]:
    status = str(health.get("status"))
    verdict = {"healthy": GOOD, "degraded": POOR}.get(status, BAD)
    about = f"{status} at {api.target.url}, version {health.get('version')}, up {duration(health.get('uptime_s'))}"
    findings = [
        Finding("running", verdict, about, "" if verdict == GOOD else "See below, and the control plane's log.")
    ]
    if took_s > SLOW_HEALTH_S:
        findings.append(Finding("speed", POOR, f"/health took {duration(took_s)}", "Is the host overloaded?"))
    names = {"postgres": "Postgres", "redis": "Redis", "mcp_manager": "supervisor"}
    for key, state in (health.get("services") or {}).items():
        findings.append(_service(names.get(key, str(key)), str(state)))
    return findings


def _service(name: str, state: str) -> Finding:
    if state in ("connected", "healthy"):
        return Finding(name, GOOD, state)
    fix = {
        "Postgres": "Calls go on, changes wait. Is DATABASE_URL right, and the server up? An embedded one restarts by itself.",
        "Redis": "Only caches are cold. Is REDIS_URL right, and the server up? An embedded one restarts by itself.",
    }
    return Finding(name, POOR if name == "Redis" else BAD, state, fix.get(name, f"{program()} up, and its log."))


def _nodes(said: Mapping[str, Any]) -> list[Finding]:
    """Whether the control planes on one database are all there; nothing of one that is alone, or from one that may not say."""
    nodes = said.get("nodes") or []
    gone = [node for node in nodes if not node.get("live")]
    findings = []
    for node in gone:
        found = f"{node.get('url')}: its lease ran out, renewed {duration(node.get('lease_age_s'))} ago"
        fix = "The others run its instances now. Start it again; if it is gone for good, do nothing: it is forgotten after a week."
        findings.append(Finding("lost node", POOR, found, fix))
    if len(nodes) > 1 and not gone:
        findings.append(Finding("nodes", GOOD, f"{len(nodes)}, and the leases of all of them stand"))
    if said.get("unheld"):
        found = f"{said['unheld']} instances are held by no control plane"
        fix = "They are taken over within seconds, but for those whose uploaded sources no live node has."
        findings.append(Finding("unheld", POOR, found, fix))
    return findings


def _issuer(issuer: Mapping[str, Any]) -> Finding:
    """Whether the keys that JWTs are verified with can be read."""
    url, keys, problem = issuer.get("url"), issuer.get("keys") or 0, issuer.get("problem")
    if problem is None and not keys:
        return Finding("issuer", POOR, f"{url}: its keys have not been read yet", "Ask again in a few seconds.")
    if problem is None:
        return Finding("issuer", GOOD, f"{url}, {keys} keys, read {duration(issuer.get('age_s'))} ago")
    known = f"the {keys} known stay in force" if keys else "none are known: its tokens are refused"
    fix = "Can this host reach it? OIDC_ISSUER and JWKS_URL say where; it is asked again every 30 s."
    return Finding("issuer", POOR, f"{url}: {problem}; {known}", fix)


def _stats(stats: Mapping[str, Any]) -> list[Finding]:
    orphans = stats.get("orphans") or 0
    fix = "This is a bug of Corral's: please report it with the control plane's log. Restarting it ends them."
    findings = [Finding("orphans", BAD if orphans else GOOD, f"{orphans}", fix if orphans else "")]
    dropped = {key: number for key, number in (stats.get("dropped") or {}).items() if number}
    if dropped:
        found = ", ".join(f"{number} {key}" for key, number in dropped.items())
        findings.append(
            Finding("dropped rows", POOR, found, "Postgres was away or too slow to keep all logs and samples.")
        )
    issuer = (stats.get("control_plane") or {}).get("issuer")
    if issuer:
        findings.append(_issuer(issuer))
    by_status = (stats.get("instances") or {}).get("by_status") or {}
    failed = by_status.get("failed") or 0
    if failed:
        findings.append(Finding("instances", POOR, f"{failed} failed", f"{program()} ls --status failed"))
    return findings
