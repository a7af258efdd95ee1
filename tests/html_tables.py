"""Tables of HTML, read as a browser would."""

from html.parser import HTMLParser


class Table(HTMLParser):
    """The caption, and the texts of each row's cells."""

    def __init__(self, source):
        super().__init__()
        self.caption, self.rows, self.bold = "", [], []
        self._path = []
        self.feed(source)
        assert not self._path, "every element is closed"

    def handle_starttag(self, tag, attrs):
        self._path.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        elif tag == "strong":
            self.bold.append(len(self.rows) - 1)

    def handle_endtag(self, tag):
        assert self._path.pop() == tag

    def handle_data(self, data):
        if "caption" in self._path:
            self.caption += data
        elif {"th", "td"} & set(self._path):  # not the space between elements
            self.rows[-1][-1] += data
