"""Whether `Mcp-Param-…` fields of a modern `tools/call` say what its arguments say.

The tool's schema names the arguments; it is known from the catalogue. While the
catalogue is not up to date nothing is checked: a call must not fail because
Corral does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from attrs import define, field

from controlplane.model import Section
from controlplane.protocol.param_headers import ParamHeader, check_params, param_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.protocol.headers import ModernRequest
    from controlplane.supervise.runner import Runner

_Known = tuple[list[dict[str, Any]], dict[str, tuple[ParamHeader, ...]]]
"""The tools as decoded, and what they want mirrored."""


@define(eq=False)
class ToolHeaders:
    """Remembers what each instance's tools want mirrored."""

    _known: WeakKeyDictionary[Runner, _Known] = field(factory=WeakKeyDictionary, init=False, repr=False)

    def check(self, runner: Runner, request: ModernRequest, fields: Mapping[bytes, bytes]) -> None:
        """Raises Refusal (-32020) where a field is missing, differs, or is there without its argument."""
        if request.method == "tools/call" and request.name is not None:
            declared = self._declared(runner).get(request.name)
            if declared is not None:
                check_params(fields, declared, request)

    def _declared(self, runner: Runner) -> dict[str, tuple[ParamHeader, ...]]:
        catalogue = runner.catalogue
        tools = catalogue.tools() if catalogue.is_fresh(Section.TOOLS) else None
        if tools is None:
            return {}
        known = self._known.get(runner)
        if known is None or known[0] is not tools:
            known = self._known[runner] = (tools, param_headers(tools))
        return known[1]
