import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from asgard.platform import files


def test_of_those_who_replace_a_file_at_once_one_wins_and_readers_see_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = [letter * 100_000 for letter in "abcd"]
    files.replace(path, texts[0])
    ended = threading.Event()

    def read() -> set[str]:
        found = set()
        while not ended.is_set():
            found.add(path.read_text())
        return found

    with ThreadPoolExecutor(5) as pool:
        reading = pool.submit(read)
        list(pool.map(partial(files.replace, path), texts * 50))
        ended.set()
    assert reading.result() <= set(texts)
    assert [*tmp_path.iterdir()] == [path]
