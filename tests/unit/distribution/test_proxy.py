"""Which proxy a request takes, by Go's rules."""

import pytest

from hafen.distribution.proxy import of

PROXIES = {"HTTP_PROXY": "proxy.test:3128", "https_proxy": "http://secure.test:3128"}


@pytest.mark.parametrize(
    ("url", "none", "proxy"),
    [
        ("http://reg.test/v2/", "", "http://proxy.test:3128"),
        ("https://reg.test/v2/", "", "http://secure.test:3128"),
        ("https://reg.test/v2/", "reg.test", None),
        ("https://sub.reg.test/v2/", "other, reg.test", None),
        ("https://reg.test/v2/", ".reg.test", "http://secure.test:3128"),
        ("https://sub.reg.test/v2/", ".reg.test", None),
        ("https://reg.test:5000/v2/", "reg.test:5001", "http://secure.test:3128"),
        ("https://reg.test:5000/v2/", "reg.test:5000", None),
        ("https://10.1.2.3/v2/", "10.1.0.0/16", None),
        ("https://10.2.2.3/v2/", "10.1.0.0/16", "http://secure.test:3128"),
        ("https://reg.test/v2/", "*", None),
        ("http://127.0.0.1:5000/v2/", "", None),
        ("http://localhost:5000/v2/", "", None),
    ],
)
def test_of(url: str, none: str, proxy: str | None) -> None:
    assert of(url, {**PROXIES, "NO_PROXY": none}) == proxy
