"""HTML: what a reader sees, with headings, lists and tables as Markdown has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from selectolax.lexbor import LexborHTMLParser, LexborNode

from extproc.extraction.bounds import Bounds, too_much_text
from extproc.extraction.formats.plain import decoded

# Markup and pictures in data URLs come on top of the text.
_MARKUP_TIMES = 4
_UNSEEN = frozenset(
    (
        *("head", "script", "style", "noscript", "template", "svg", "math", "iframe", "object"),
        *("canvas", "audio", "video", "select", "datalist"),
    )
)
_HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_BLOCKS = frozenset(
    (
        *(
            "address",
            "article",
            "aside",
            "blockquote",
            "body",
            "caption",
            "dd",
            "details",
            "div",
            "dl",
            "dt",
        ),
        *(
            "fieldset",
            "figcaption",
            "figure",
            "footer",
            "form",
            "header",
            "hr",
            "main",
            "nav",
            "ol",
            "p",
        ),
        *("pre", "section", "summary", "table", "tbody", "tfoot", "thead", "ul", *_HEADINGS),
    )
)
_LINES = frozenset(("br", "li", "tr"))
_SPACE = re.compile(r"\s+")
_TITLE_CHARACTERS = 1000


def read(file: BinaryIO, _filename: str, bounds: Bounds) -> Iterator[str]:
    """Yield the text of the page, its title first."""
    most = bounds.text_bytes * _MARKUP_TIMES
    markup = "".join(decoded(file, most=most, refused=too_much_text(bounds.text_bytes)))
    tree = _parsed(markup)
    title = tree.css_first("title")
    named = _SPACE.sub(" ", title.text()).strip()[:_TITLE_CHARACTERS] if title is not None else ""
    page = _Page()
    if tree.root is not None:
        _walk(tree.root, page)
    lines = page.ended()
    # Most pages say it again, as their first heading.
    if named and not (lines and lines[0].lstrip("# ") == named):
        yield f"# {named}\n\n"
    yield "\n".join(lines).rstrip()


def _parsed(markup: str) -> LexborHTMLParser:
    try:
        return LexborHTMLParser(markup)
    except Exception as error:
        # No page is malformed; what fails is that there is no room for its tree.
        raise MemoryError from error


class _Page:
    """Gathers lines; a blank one stands between blocks."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._line: list[str] = []
        self._mark = ""
        self.preformatted = 0
        self.cells = 0

    def add(self, text: str) -> None:
        """Add a piece of text to the line."""
        if self.preformatted:
            self._line.append(text)
        else:
            self._line.append(_SPACE.sub(" ", text))

    def open(self, tag: str) -> None:
        """Begin an element."""
        if tag in ("td", "th"):
            self._line.append(" | " if self.cells else "")
            self.cells += 1
        elif tag in _LINES or (tag in _BLOCKS and not self.cells):
            self.end_line(blank=tag in _BLOCKS)
        elif tag in _BLOCKS:
            self._line.append(" ")
        if tag == "tr":
            self.cells = 0
        self._mark = _HEADINGS.get(tag) or ("- " if tag == "li" else self._mark)
        self.preformatted += tag == "pre"

    def close(self, tag: str) -> None:
        """End an element."""
        if tag in ("tr", "table"):
            self.cells = 0
        if (tag in _LINES and tag != "br") or (tag in _BLOCKS and not self.cells):
            self.end_line(blank=tag in _BLOCKS)
        self.preformatted -= tag == "pre"

    def end_line(self, *, blank: bool) -> None:
        """End the line, and the block with it if `blank`."""
        text = "".join(self._line)
        text = text.strip("\n") if self.preformatted else text.strip()
        self._line = []
        if text.strip():
            self.lines.append(self._mark + text)
            self._mark = ""
        if blank and self.lines and self.lines[-1]:
            self.lines.append("")

    def ended(self) -> list[str]:
        """Return all lines."""
        self.end_line(blank=False)
        return self.lines


def _walk(root: LexborNode, page: _Page) -> None:
    """Visit each node in order, without recursion: pages nest as deep as they like."""
    node: LexborNode | None = root
    while node is not None:
        tag = node.tag or ""
        if tag == "-text":
            page.add(node.text_content or "")
        elif tag not in _UNSEEN and not tag.startswith(("-", "!")):
            page.open(tag)
            if node.child is not None:
                node = node.child
                continue
            page.close(tag)
        node = _after(node, root, page)


def _after(node: LexborNode, root: LexborNode, page: _Page) -> LexborNode | None:
    while node.mem_id != root.mem_id:
        if node.next is not None:
            return node.next
        if node.parent is None:
            return None
        node = node.parent
        page.close(node.tag or "")
    return None
