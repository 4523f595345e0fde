"""Pages for people: rendered once from templates, whole in themselves, closed by their content security policy."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from controlplane.web.call import HTML_TYPE, Reply

if TYPE_CHECKING:
    from controlplane.web.problems import Headers

STATIC = Path(__file__).parent / "static"
PAGE_CACHE = b"no-cache"
"""Pages change with the version only, but must not outlive it."""

_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"(?<![\w/])(/(?:docs|problems|openapi\.json)(?:/\w+)?)(?![\w/])")


def prose(text: str) -> Markup:
    """Our own texts as HTML: escaped, words in backticks as code, paragraphs at empty lines."""
    paragraphs = str(escape(text)).strip().split("\n\n")
    return Markup("".join(f"<p>{_inline(paragraph)}</p>" for paragraph in paragraphs))  # noqa: S704 - escaped above


def inline(text: str) -> Markup:
    """The same within a line."""
    return Markup(_inline(str(escape(text))))  # noqa: S704 - escaped above


def _inline(escaped: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escaped)


def render(template: str, *, script: str | None = None, **values: Any) -> Reply:
    """Fill a template in; its style and script stand inline and are the only ones that the browser may run.

    Args:
        template: A file in `static/`.
        script: A file in `static/` that the page runs; None: none at all.
        values: For the template.
    """
    style = (STATIC / "page.css").read_text()
    code = (STATIC / script).read_text() if script else ""
    html = _ENVIRONMENT.get_template(template).render(
        style=Markup(style),  # noqa: S704 - a file of ours
        script=Markup(code),  # noqa: S704 - a file of ours
        **values,
    )
    return Reply(200, html.encode(), HTML_TYPE, _headers(style, code))


def _headers(style: str, script: str) -> Headers:
    scripts = f"'{_digest(script)}'" if script else "'none'"
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src {scripts}; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return (
        (b"cache-control", PAGE_CACHE),
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
    )


def _digest(text: str) -> str:
    """As Content Security Policy level 3 names inline code: the hash of what stands between the tags."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(STATIC),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["prose"] = prose
_ENVIRONMENT.filters["inline"] = inline
