"""Who may come in: tokens, and for administrators the users whose they are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from controlplane.wire.text import clean
from controlplane.wire.units import parse_duration
from tui.board.reading import mapping
from tui.board.token_columns import ROLE_HELP, ROLES, TOKEN_COLUMNS, USER_COLUMNS
from tui.client import Failure, path_of
from tui.screens.ask import AskScreen, SecretScreen
from tui.screens.base import BoardScreen
from tui.screens.confirm import ConfirmScreen
from tui.widgets.grid import Grid
from tui.working import set_to_work

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult
    from textual.widget import Widget

FORBIDDEN = 403
READ_ONLY = "Read-only: nothing is changed from here"
ROLES_HELP = " · ".join(f"{role}: {what}" for role, what in ROLE_HELP.items())


class TokensScreen(BoardScreen):
    """Two tables; keys mean the one that has the keyboard. A token's secret is shown once, when it is made."""

    crumbs = ("tokens",)
    place = "tokens"
    filter_words = "a part of name, owner and role"
    DEFAULT_CSS = """
    TokensScreen > .heading { height: 1; padding: 0 1; color: $text-primary; text-style: bold; }
    TokensScreen > #users { height: 1fr; max-height: 40%; }
    TokensScreen > .-none { display: none; }
    TokensScreen > #note { height: auto; padding: 0 1; color: $text-warning; display: none; }
    TokensScreen > #note.-told { display: block; }
    TokensScreen > #roles { height: auto; padding: 0 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New token"),
        Binding("ctrl+d", "revoke", "Revoke, disable"),
        Binding("U", "new_user", "New user"),
        Binding("o", "role", "Role of a user"),
        Binding("tab", "app.focus_next", "Other table", show=False),
        Binding("ctrl+r", "reload", "Read anew", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._is_admin = False
        self._filter = ""
        self._tokens: list[Any] = []
        self._users: list[Any] = []

    def body(self) -> ComposeResult:
        yield Static(id="note")
        yield Static("Tokens", classes="heading")
        yield Grid(
            TOKEN_COLUMNS, lambda r: str(r.get("token_id")), empty="reading …", id="tokens", clock=self.plane.clock
        )
        yield Static(
            "Users: ctrl+d disables or enables one, o changes the role", id="of-users", classes="heading -none"
        )
        yield Grid(USER_COLUMNS, lambda r: str(r.get("name")), id="users", classes="-none", clock=self.plane.clock)
        yield Static(ROLES_HELP, id="roles", markup=False)

    @property
    def tokens(self) -> Grid[Any]:
        return self.query_one("#tokens", Grid)

    @property
    def users(self) -> Grid[Any]:
        return self.query_one("#users", Grid)

    def main_widget(self) -> Widget:
        return self.tokens

    @property
    def filter_text(self) -> str:
        return self._filter

    def filter_changed(self, text: str) -> None:
        self._filter = text.strip().lower()
        self._show()

    def on_mount(self) -> None:
        self.action_reload()

    # -- reading

    def action_reload(self) -> None:
        set_to_work(self, self._read, group="read", exclusive=True)

    async def _read(self) -> None:
        try:
            self._tokens = await self.plane.api.pages("/tokens", "tokens")
            self._users = await self._read_users()
        except Failure as failure:
            self._say(f"! {failure} {failure.hint}".rstrip())
            return
        self.tokens.empty = "Nothing fits the filter" if self._filter else "No tokens"
        self._say("" if self._is_admin else "These are your own: those of others, and users, are for administrators")
        self._show()

    async def _read_users(self) -> list[Any]:
        try:
            users = await self.plane.api.pages("/users", "users")
        except Failure as failure:
            if failure.status != FORBIDDEN:
                raise
            self._is_admin = False
            return []
        self._is_admin = True
        return users

    def _show(self) -> None:
        def fits(row: Any) -> bool:
            return self._filter in f"{row.get('name')} {row.get('owner')} {row.get('role')}".lower()

        self.tokens.show([mapping(row) for row in self._tokens if fits(row)])
        self.users.show([mapping(row) for row in self._users if fits(row)])
        for part in ("#users", "#of-users"):
            self.query_one(part).set_class(not self._is_admin, "-none")

    def _say(self, text: str) -> None:
        note = self.query_one("#note", Static)
        note.update(Content(clean(text)))
        note.set_class(bool(text), "-told")

    # -- changing

    def _may(self) -> bool:
        if self.plane.read_only:
            self.dashboard.warn(READ_ONLY)
        return not self.plane.read_only

    def action_new(self) -> None:
        if not self._may():
            return
        lines: list[tuple[str, str, Any]] = [
            ("name", "Name", "where it is used"),
            ("role", "Role", ROLES),
            ("expires", "Expires in", "30d, 12h …; empty: never"),
        ]
        if self._is_admin:
            lines.append(("owner", "Owner", "a user; empty: yourself"))
        pointers = {"/name": "name", "/role": "role", "/expires_in": "expires", "/owner": "owner"}
        self.app.push_screen(AskScreen("A new token", lines, self._make_token, pointers))

    async def _make_token(self, values: dict[str, str]) -> Failure | None:
        document: dict[str, Any] = {"name": values["name"], "role": values["role"]}
        if values["expires"]:
            try:
                document["expires_in"] = parse_duration(values["expires"])
            except ValueError as error:
                return Failure("", errors=(("/expires_in", str(error)),))
        if values.get("owner"):
            document["owner"] = values["owner"]
        return await self._make("/tokens", document, f"Token {values['name']}, {values['role']}")

    def action_new_user(self) -> None:
        if self._may() and self._need_admin():
            lines = [
                ("name", "Name", "1 to 63 of a-z 0-9 . _ -"),
                ("role", "Role", ("deployer", "caller", "viewer", "admin")),
            ]
            pointers = {"/name": "name", "/role": "role"}
            self.app.push_screen(AskScreen("A new user, with a first token", lines, self._make_user, pointers))

    async def _make_user(self, values: dict[str, str]) -> Failure | None:
        return await self._make("/users", dict(values), f"First token of {values['name']}, {values['role']}")

    async def _make(self, path: str, document: dict[str, Any], title: str) -> Failure | None:
        """Send it, and show the secret that the answer holds."""
        try:
            answer = await self.plane.api.send("POST", path, document)
        except Failure as failure:
            return failure
        self.dashboard.call_later(self.dashboard.push_screen, SecretScreen(clean(title), str(answer["token"])))
        self.action_reload()
        return None

    def action_revoke(self) -> None:
        if not self._may():
            return
        if self.focused is self.users:
            self._disable()
            return
        token = self.tokens.current
        if token is not None:
            who = f"{clean(token['name'])} of {clean(token['owner'])}"
            question = f"Revoke the token {who}? It stops working at once, and its streams end."
            path = path_of("tokens", str(token["token_id"]))
            self._ask(question, "Revoke", lambda: self._change("DELETE", path, None, f"revoked {who}"))

    def _disable(self) -> None:
        user = self.users.current
        if user is None:
            return
        name, enable = clean(user["name"]), bool(user.get("disabled"))
        path = path_of("users", str(user["name"]))
        if enable:
            set_to_work(self, partial(self._change, "PATCH", path, {"disabled": False}, f"enabled {name}"))
        else:
            question = f"Disable {name}? All of {name}'s tokens stop working at once; the instances stay as they are."
            self._ask(question, "Disable", lambda: self._change("PATCH", path, {"disabled": True}, f"disabled {name}"))

    def action_role(self) -> None:
        user = self.users.current
        if not (self._may() and self._need_admin()) or user is None:
            return
        name, now = str(user["name"]), str(user["role"])
        choices = (now, *(role for role in ROLES if role != now))

        async def send(values: dict[str, str]) -> Failure | None:
            try:
                await self.plane.api.send("PATCH", path_of("users", name), {"role": values["role"]})
            except Failure as failure:
                return failure
            self.action_reload()
            return None

        title = f"The role of {clean(name)}: the most that any of the tokens may do"
        self.app.push_screen(AskScreen(title, [("role", "Role", choices)], send, {"/role": "role"}))

    def _need_admin(self) -> bool:
        if not self._is_admin:
            self.dashboard.warn("Users are for administrators", "This token has another role")
        return self._is_admin

    def _ask(self, question: str, yes: str, do: Callable[[], Any]) -> None:
        def answered(answer: bool | None) -> None:
            if answer:
                set_to_work(self, do)

        self.app.push_screen(ConfirmScreen(question, yes), answered)

    async def _change(self, method: str, path: str, document: Any, done: str) -> None:
        try:
            await self.plane.api.send(method, path, document)
        except Failure as failure:
            self.dashboard.warn(str(failure), failure.hint)
        else:
            self.notify(done, markup=False)
        await self._read()
