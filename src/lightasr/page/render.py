"""Writes a page from its template, and values as its readers want them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from lightasr.files import write_atomically


def write_page(template: Path, out_html: Path, **content: Any) -> None:
    """Fill in a template, which may extend `base.html`; the page is there whole or not at all."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template.name).render(**content)
    out_html.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out_html, page)


def fact_text(value: object) -> str:
    """A fact as a reader wants it; what is not known is a dash."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {fact_text(inner)}" for name, inner in value.items())
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(fact_text(inner) for inner in value)
    return str(value)
