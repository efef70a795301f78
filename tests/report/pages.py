"""A page as a browser reads it: elements in order, with their attributes and their text."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

EMPTY = {"col", "meta", "br", "img", "link", "hr", "input"}


@dataclass
class Page(HTMLParser):
    """What ``html.parser`` finds; every element that is opened has to be closed, in order."""

    tags: list = field(default_factory=list)
    text: dict = field(default_factory=dict)

    def __post_init__(self):
        super().__init__()
        self.open, self.broken = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data.strip())

    @property
    def words(self):
        return " ".join(" ".join(pieces) for tag, pieces in self.text.items() if tag != "style")

    def attributes(self, *names):
        return [attrs[name] for _, attrs in self.tags for name in names if name in attrs]

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def parse(text):
    page = Page()
    page.feed(text)
    page.close()
    return page
