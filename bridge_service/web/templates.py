"""Templates, the words in French and English, and the files that pages load."""

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of a page made of these files; nothing in a page's own text can run or load anything."""

_FOLDER: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_STATIC: Final = {file.name: file for file in (_FOLDER / "static").iterdir()}
_WORDS: Final[dict[str, dict[str, str]]] = json.loads(
    (_FOLDER / "templates" / "words.json").read_text(encoding="utf-8")
)
_ENGLISH: Final = "en"
LANGUAGES: Final = (*_WORDS,)

_templates: Final = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def language(accepted: str) -> str:
    """Choose `fr` or `en` by an Accept-Language header; English if it asks for neither."""
    ranked = []
    for place, part in enumerate(accepted.split(",")):
        name, _, quality = part.partition(";")
        code = name.strip().lower().partition("-")[0]
        try:
            weight = float(quality.strip().removeprefix("q=") or 1)
        except ValueError:
            weight = 0.0
        if code in _WORDS and weight > 0:
            ranked.append((-weight, place, code))
    return min(ranked)[2] if ranked else _ENGLISH


def render(name: str, code: str, **values: Any) -> str:  # noqa: ANN401 - a template takes anything
    """Render a template in a language."""
    return _templates.get_template(name).render(lang=code, words=_WORDS[code], **values)


def language_of(request: Request) -> str:
    """Choose the language of a visitor."""
    return language(request.headers.get("Accept-Language", ""))


def page(request: Request, name: str, status: int = HTTPStatus.OK, **values: Any) -> Response:  # noqa: ANN401 - as above
    """Render a template in the visitor's language."""
    html = render(name, language_of(request), **values)
    # With `no-referrer` a browser sends the form of a page with `Origin: null`.
    headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin", "Vary": "Accept-Language"}
    return HTMLResponse(html, status, headers=headers)


async def _file(request: Request) -> Response:
    file = _STATIC.get(request.path_params["name"])
    if file is None:
        return Response(status_code=404)
    return Response(file.read_bytes(), media_type=_TYPES[file.suffix])


STATIC: Final = Route("/static/{name}", _file)
