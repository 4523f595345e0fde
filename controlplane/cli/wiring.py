"""How one client is wired to one instance: over HTTP or through `corral proxy`, and where its token comes from.

Pure decisions; nothing is read, made or written here. The rule: a token stands in a client's file only where it was
asked for, or where there is no other way.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import click
from attrs import evolve, field, frozen

from controlplane.cli.clients import DEFAULT_VARIABLE, Client, Local, Remote, question
from controlplane.cli.target import LOCAL, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

Transport = Literal["http", "stdio"]
Credential = Literal["environment", "question", "proxy", "new", "given"]
"""Where the token comes from: a variable of the client's environment, a question that the client asks, the
credentials file or the contexts that `corral proxy` reads, a token made for this client, or one that was given."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r"[!-~]+")
UNKNOWN = "…"
"""Stands for a token that is not made yet."""


@frozen
class Wish:
    """What was asked for on the command line."""

    transport: Transport | None = None
    variable: str | None = None
    token: str | None = field(default=None, repr=False)
    new_token: bool = False
    project: bool = False

    @property
    def credential(self) -> Credential | None:
        if self.token is not None:
            return "given"
        if self.new_token:
            return "new"
        return None if self.variable is None else "environment"


@frozen
class Place:
    """What an entry leads to, and how `corral` is started on this machine.

    Args:
        reference: The instance, as `corral proxy` takes it.
        url: Its endpoint.
        server: The control plane's base URL.
        command: The words that start `corral`.
        home: A `CORRAL_HOME` to hand down, empty for the default.
        has_credentials: Whether `corral` finds address and token by itself, in its credentials file or its contexts.
        context: The context that they are found by.
    """

    reference: str
    url: str
    server: str
    command: tuple[str, ...]
    home: str = ""
    has_credentials: bool = False
    context: str = LOCAL


@frozen
class Wiring:
    """The decision."""

    client: Client
    place: Place
    transport: Transport
    credential: Credential
    variable: str | None = None
    token: str = field(default=UNKNOWN, repr=False)

    def with_token(self, token: str) -> Wiring:
        return evolve(self, token=token)

    @property
    def holds_token(self) -> bool:
        """Whether the entry has the token itself in it."""
        return self.credential in ("new", "given")

    def entry(self, name: str) -> dict[str, Any]:
        """Return what stands in the client's file under this name."""
        if self.transport == "stdio":
            program, *words = self.place.command
            if self.credential == "proxy":  # whatever context is the current one when the client starts it
                words += ["--context", self.place.context]
            words += ["proxy", self.place.reference]
            return self.client.local(Local(name, program, words, dict(self._environment())))
        assert self.client.remote is not None
        variable = self.variable if self.credential == "environment" else None
        return self.client.remote(Remote(name, self.place.url, self._bearer(), variable))

    def _bearer(self) -> str:
        if self.credential == "environment":
            assert self.variable is not None
            return self.client.refer(self.variable)
        return f"${{input:{self._question_id()}}}" if self.credential == "question" else self.token

    def _question_id(self) -> str:
        """Name the question after the control plane: two of them have two tokens."""
        host = urlsplit(self.place.server).hostname or ""
        return "corral-token" if is_loopback(host) else f"corral-token-{host}"

    def question(self) -> dict[str, Any] | None:
        """Return what makes the client ask for the token, for one that does."""
        return question(self._question_id(), self.place.server) if self.credential == "question" else None

    def _environment(self) -> Mapping[str, str]:
        if self.credential == "proxy":
            return {"CORRAL_HOME": self.place.home} if self.place.home else {}
        held = {DEFAULT_VARIABLE: self.token} if self.holds_token else {}
        return {"CORRAL_URL": self.place.server, **held}


def decide(client: Client, place: Place, wish: Wish) -> Wiring:
    """Choose the transport and the credential.

    Raises:
        click.UsageError: what was asked for cannot be had with this client.
    """
    _check(client, wish)
    credential = wish.credential or _default(client, place, wish)
    transport = wish.transport or _transport(client, credential)
    variable = (wish.variable or DEFAULT_VARIABLE) if credential == "environment" else None
    if transport == "stdio" and variable not in (None, DEFAULT_VARIABLE):
        raise click.UsageError(f"`corral proxy` takes its token from {DEFAULT_VARIABLE} and no other variable.")
    if transport == "http" and credential == "environment" and client.reference is None:
        raise click.UsageError(f"{client.title} cannot take a header from a variable. Leave --token-env out.")
    wiring = Wiring(client, place, transport, credential, variable, wish.token or UNKNOWN)
    if wish.project and wiring.holds_token:
        raise click.UsageError("A project's file is shared, and is no place for a token. Leave --project out.")
    return wiring


def _transport(client: Client, credential: Credential) -> Transport:
    if credential == "proxy" or client.remote is None:
        return "stdio"
    return "stdio" if credential == "environment" and client.reference is None else "http"


def _check(client: Client, wish: Wish) -> None:
    if sum((wish.token is not None, wish.new_token, wish.variable is not None)) > 1:
        raise click.UsageError("--token, --new-token and --token-env: give one of them.")
    if wish.transport == "http" and client.remote is None:
        raise click.UsageError(f"{client.title} takes no HTTP endpoint from its file, only commands.")
    if wish.variable is not None and not _VARIABLE.fullmatch(wish.variable):
        raise click.UsageError(f"{wish.variable!r} is no name of a variable.")
    if wish.token is not None and not _TOKEN.fullmatch(wish.token):
        raise click.UsageError("The token is empty, or holds what no token holds.")
    if wish.project and client.project is None:
        raise click.UsageError(f"{client.title} has no file for a single project.")


def _default(client: Client, place: Place, wish: Wish) -> Credential:
    """Choose where the token comes from: not from the file, if that can be."""
    over_http = client.remote is not None and wish.transport != "stdio"
    if over_http and client.asks:
        return "question"
    if over_http and client.reference is not None:
        return "environment"
    if place.has_credentials and wish.transport != "http":
        return "proxy"
    return "environment" if wish.project else "new"
