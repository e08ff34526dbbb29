"""Reading of a page as a browser would: texts, links, pictures, and whether its elements are closed in order."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "input", "img", "br", "link"}
LOADING = {"src", "href", "data", "action", "poster", "srcset", "xlink:href"}


class Reader(HTMLParser):
    """What a page holds; ``faults`` names elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        self.faults += self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.open[-1:] == [tag]:
            self.open.pop()
        else:
            self.faults.append(f"</{tag}> in {self.open[-1:]}")

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def text_of(self, tag: str) -> list[str]:
        """Return the texts directly inside elements ``tag``."""
        return [text for parent, text in self.texts if parent == tag and text.strip()]

    def loads(self) -> list[str]:
        """Return the places from which something would be loaded, other than the page itself."""
        values = [value or "" for _, attributes in self.tags for name, value in attributes.items() if name in LOADING]
        return [value for value in values if not value.startswith(("#", "data:"))]

    def broken_anchors(self) -> list[str]:
        """Return links to places of the page that do not exist, and ids that exist twice."""
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        links = [str(attributes.get("href"))[1:] for tag, attributes in self.tags if tag == "a"]
        return [link for link in links if link not in ids] + [str(name) for name in {*ids} if ids.count(name) > 1]


def sound(text: str) -> Reader:
    """Return a page as read, after checks that hold for every page."""
    reader = Reader(text)
    assert not reader.faults and not reader.loads() and not reader.broken_anchors()
    assert all(attributes.get("alt") is not None for tag, attributes in reader.tags if tag == "img")
    assert all(
        attributes.get("aria-label") or attributes.get("aria-hidden") for tag, attributes in reader.tags if tag == "svg"
    )
    policies = [attributes["content"] for tag, attributes in reader.tags if "http-equiv" in attributes]
    assert len(policies) == 1 and "default-src 'none'" in policies[0]
    assert "url(" not in text and "@import" not in text
    return reader
