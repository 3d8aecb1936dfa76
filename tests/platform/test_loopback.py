import pytest

from asgard.platform.loopback import past_proxies

LOCAL = "127.0.0.1,localhost"


@pytest.mark.parametrize(
    ("given", "lower", "upper"),
    [
        ({}, LOCAL, LOCAL),
        ({"NO_PROXY": "a.example, .b.example"}, f"a.example,.b.example,{LOCAL}", f"a.example,.b.example,{LOCAL}"),
        ({"no_proxy": "a.example"}, f"a.example,{LOCAL}", f"a.example,{LOCAL}"),
        ({"no_proxy": "a.example", "NO_PROXY": "b.example"}, f"a.example,{LOCAL}", f"b.example,{LOCAL}"),
        ({"no_proxy": "localhost"}, "localhost,127.0.0.1", "localhost,127.0.0.1"),
        ({"NO_PROXY": "*"}, "*", "*"),
    ],
)
def test_no_proxy_is_asked_for_servers_of_this_machine_nor_for_those_that_were_named_before(
    given: dict[str, str], lower: str, upper: str
) -> None:
    found = past_proxies(given)
    assert found == {"no_proxy": lower, "NO_PROXY": upper}
    assert past_proxies(found) == found
