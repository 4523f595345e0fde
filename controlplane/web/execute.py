"""`POST /mcp/{ref}/execute`, whatever it came through: admit, read, call, answer.

Both doors call this one handler; it knows no socket and no framework. The body
is decoded one level deep: `params` and the server's answer stay the bytes that
were sent, so unknown members and numbers of any size pass through exactly.
"""

from __future__ import annotations

import difflib
import itertools
from typing import TYPE_CHECKING

import msgspec
from attrs import define, field, frozen

from controlplane.core.jsonrpc import one_line
from controlplane.errors import FieldError, InvalidRequest, ShuttingDown
from controlplane.model import Principal, Role
from controlplane.web import guards, traced
from controlplane.web.request import Head, decode_members, prefers_events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from controlplane.supervise.accounts import Account
    from controlplane.web.auth import Grant
    from controlplane.web.services import Services

METHOD_MAX_CHARS = 256
MEMBERS = ("method", "params", "timeout_s")
CALL_ROLE = Role.CALLER
EXECUTE_ROUTE = "/mcp/{ref}/execute"

_decode_text = msgspec.json.Decoder(str).decode
_decode_number = msgspec.json.Decoder(float).decode
_serial = itertools.count(1)

_KINDS = {
    ord("{"): "an object",
    ord("["): "an array",
    ord('"'): "a string",
    ord("t"): "a boolean",
    ord("f"): "a boolean",
}


@frozen(slots=True)
class Call:
    """What the body asks for. `params` is raw JSON on one line; `timeout_s` None is the instance's own."""

    method: str
    params: bytes | None
    timeout_s: float | None


def parse_call(body: bytes, *, max_timeout_s: float) -> Call:
    """Read the body of an execute request.

    Args:
        body: As sent.
        max_timeout_s: The longest time limit that may be asked for.

    Raises:
        MalformedJson: it is not JSON.
        InvalidRequest: it is, but wrong; all wrong places are named at once.
    """
    members = decode_members(body)
    errors = [_unknown(name) for name in members if name not in MEMBERS]
    method = _method(members.get("method"), errors)
    params = _params(members.get("params"), errors)
    timeout_s = _timeout(members.get("timeout_s"), max_timeout_s, errors)
    if errors:
        raise InvalidRequest("The call cannot be made as written.", errors=tuple(errors))
    return Call(method, params, timeout_s)


def _unknown(name: str) -> FieldError:
    close = difflib.get_close_matches(name, MEMBERS, n=1)
    pointer = "/" + name[:METHOD_MAX_CHARS].replace("~", "~0").replace("/", "~1")
    return FieldError(pointer, f"unknown field; did you mean {close[0]}?" if close else "unknown field")


def _method(raw: msgspec.Raw | None, errors: list[FieldError]) -> str:
    if raw is None:
        errors.append(FieldError("/method", "is required"))
        return ""
    try:
        method = _decode_text(raw)
    except msgspec.ValidationError:
        errors.append(FieldError("/method", f"expected a string, got {_kind(raw)}"))
        return ""
    if not 1 <= len(method) <= METHOD_MAX_CHARS:
        errors.append(FieldError("/method", f"expected 1 to {METHOD_MAX_CHARS} characters"))
    elif not method.isprintable():
        errors.append(FieldError("/method", "must not hold line breaks or other control characters"))
    return method


def _params(raw: msgspec.Raw | None, errors: list[FieldError]) -> bytes | None:
    if raw is None:
        return None
    params = bytes(raw)
    if params == b"null":
        return None
    if not params.startswith(b"{"):
        errors.append(FieldError("/params", f"expected an object, got {_kind(raw)}"))
    return one_line(params)


def _timeout(raw: msgspec.Raw | None, max_timeout_s: float, errors: list[FieldError]) -> float | None:
    if raw is None or bytes(raw) == b"null":
        return None
    try:
        timeout_s = _decode_number(raw)
    except msgspec.ValidationError:
        errors.append(FieldError("/timeout_s", f"expected a number of seconds, got {_kind(raw)}"))
        return None
    if not 0 < timeout_s <= max_timeout_s:
        errors.append(FieldError("/timeout_s", f"expected more than 0 and at most {max_timeout_s:g} seconds"))
    return timeout_s


def _kind(raw: msgspec.Raw) -> str:
    first = bytes(raw)[:1]
    return "null" if first == b"n" else _KINDS.get(first[0], "a number")


@define(eq=False)
class Executor:
    """The handler, for as long as the control plane runs."""

    services: Services
    _max_timeout_s: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._max_timeout_s = self.services.config.max_call_timeout_s

    def admit(self, head: Head) -> Grant:
        """Let a request in, or raise the error that is its answer; nothing of the body is needed for it."""
        grant = self.services.guards.admit(head, CALL_ROLE)
        guards.check_no_query(head)
        guards.check_small_json(head)
        prefers_events(head.fields.get(b"accept"))
        return grant

    def readmit(self, grant: Grant, generation: int) -> bool:
        """See `Guards.readmit`."""
        return self.services.guards.readmit(grant, generation)

    async def answer(
        self,
        principal: Principal,
        ref: str,
        body: bytes,
        is_gone: Callable[[], bool],
        on_notification: Callable[[str, bytes | None], None] | None = None,
        *,
        traced_by: Mapping[bytes, bytes] | None = None,
    ) -> bytes:
        """Make the call and return the JSON-RPC answer, the server's own member spliced in.

        Args:
            principal: Who calls.
            ref: The instance's id or name, or `owner/name`.
            body: As sent.
            is_gone: Whether the caller has left; asked now and then while the call lasts.
            on_notification: Gets the method and raw params of this call's progress and log notifications.
            traced_by: The request's fields, if it has to do with a trace (`traced.wanted`).

        Raises:
            CorralError: the platform's own failure, which is a problem document.
        """
        if traced_by is not None:
            with traced.Traced(traced_by, EXECUTE_ROUTE, ref, body) as trace:
                answer = await self.answer(principal, ref, body, is_gone, on_notification)
                trace.answered(200)
                return answer
        services = self.services
        if services.stopping:
            raise ShuttingDown("The control plane is stopping; it takes no new calls.", retry_after_s=5)
        runner = services.supervisor.find(principal, ref)
        account = services.accounts.of(runner.instance.owner)
        call = parse_call(body, max_timeout_s=self._max_timeout_s)
        if on_notification is not None:
            on_notification = _counted(account, on_notification)
        member = await runner.call(
            call.method, call.params, timeout_s=call.timeout_s, is_gone=is_gone, on_notification=on_notification
        )
        answer = b'{"jsonrpc":"2.0","id":%d,%b}' % (next(_serial), member)
        account.bytes_in += len(body)
        account.bytes_out += len(answer)
        return answer


def _counted(account: Account, tell: Callable[[str, bytes | None], None]) -> Callable[[str, bytes | None], None]:
    """What is said during a call is a part of its answer."""

    def told(method: str, params: bytes | None) -> None:
        account.bytes_out += len(params or b"")
        tell(method, params)

    return told
