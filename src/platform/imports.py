"""Heavy imports in half the time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def uncollected() -> Iterator[None]:
    """Imports within do not wait for the garbage collector, which else takes a quarter of the time of MLflow's.

    What is there at the end stays for good: the collector leaves it alone.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def leave_types_unchecked() -> None:
    """Have Feast, imported after this, not make its functions check their types: that is six of its nine seconds.

    For a process that does nothing else; typeguard has no setting for it.
    """
    import typeguard

    def typechecked(target: Any = None, **_: Any) -> Any:
        return (lambda found: found) if target is None else target

    typeguard.typechecked = typechecked
