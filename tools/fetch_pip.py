"""Downloads the newest pip wheel to the path given, for a Python that has neither pip nor venv.

Standard library only. Format: https://packaging.python.org/en/latest/specifications/simple-repository-api/
"""

import hashlib
import os
import re
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import Request, urlopen


def newest_wheel(page: str, base: str) -> str:
    """URL, with its hash as fragment, of the newest final `pip-X-py3-none-any.whl` that the index page links to."""
    versions = {}
    for link in re.findall(r'<a\s[^>]*href="([^"]+)"', page):
        url = urljoin(base, unescape(link))
        name = unquote(Path(urlsplit(url).path).name)
        if match := re.fullmatch(r"pip-(\d+(?:\.\d+)*)-py3-none-any\.whl", name):
            versions[tuple(map(int, match[1].split(".")))] = url
    return versions[max(versions)]


def main() -> None:
    """Save the wheel, if it is what the index says it is."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    with urlopen(Request(f"{index}/pip/", headers={"Accept": "text/html"}), timeout=60) as page:
        url = newest_wheel(page.read().decode(), page.url)
    with urlopen(url, timeout=60) as download:
        wheel = download.read()
    algorithm, _, digest = urlsplit(url).fragment.partition("=")
    if algorithm and hashlib.new(algorithm, wheel).hexdigest() != digest:
        sys.exit(f"{url} does not have the hash that the index gives.")
    Path(sys.argv[1]).write_bytes(wheel)


if __name__ == "__main__":
    main()
