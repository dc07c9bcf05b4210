"""Checks of a page: that it is well-formed and needs nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Tags(HTMLParser):
    """Collects what a browser would load, and whether every element is closed."""

    VOID = ("meta", "br", "path", "use", "rect", "line", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data") and value:
                self.loads.append(value)
            if name == "id" and value:
                self.ids.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def assert_loads_nothing(page: str) -> None:
    """No script, style, image or font from anywhere else."""
    assert all(target.startswith("#") for target in _parsed(page).loads)
    assert "<script" not in page
    assert "<link" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<>]+", page)) <= namespaces


def assert_well_formed(page: str) -> None:
    """Every element is closed, every id stands once, every link leads somewhere."""
    tags = _parsed(page)
    assert tags.open == []
    assert len(set(tags.ids)) == len(tags.ids), "an id stands once"
    for target in tags.loads:
        assert target[1:] in tags.ids, target


def _parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags
