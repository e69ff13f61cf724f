"""Who may see the page, and how its answers are hardened."""

from __future__ import annotations

import pytest

from tianji_cli.watch.access import HEADERS, has_own_host, new_token, path_within, refusal


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:1", "127.0.0.1", "localhost", "[::1]:80"],
)
def test_this_machine_by_its_own_names(host):
    assert has_own_host([(b"host", host.encode()), (b"accept", b"*/*")])


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["evil.example"],
        ["evil.example:8000"],
        ["127.0.0.1.evil.example"],
        ["localhost.evil.example:80"],
        ["127.0.0.1:80:80"],
        ["127.0.0.1:x"],
        ["127.0.0.1@evil.example"],
        ["10.0.0.1:8000"],
        ["0.0.0.0:8000"],
        ["::1"],
        [""],
        [":80"],
        ["127.0.0.1:8000", "127.0.0.1:8000"],
        ["127.0.0.1:8000", "evil.example"],
        ["localhost\xa0"],
    ],
)
def test_any_other_name_is_refused(hosts):
    headers = [(b"host", host.encode("latin-1")) for host in hosts]
    assert not has_own_host(headers)
    refused = refusal("GET", headers)
    assert refused is not None
    assert refused[0] == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
def test_only_reading_is_allowed(method):
    refused = refusal(method, [(b"host", b"localhost")])
    assert refused is not None
    assert refused[0] == 405


def test_a_path_needs_the_token():
    token = new_token()
    assert path_within(f"/{token}/events", token) == "/events"
    assert path_within(f"/{token}/", token) == "/"
    assert path_within(f"/{token}", token) == ""
    for path in ("/", "", "//", f"/{token[:-1]}/", f"/{token}x/", f"/x/{token}/", f"//{token}/"):
        assert path_within(path, token) is None
    assert path_within("/\udcff/", token) is None


def test_tokens_cannot_be_guessed():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 43


def test_nothing_from_elsewhere_and_no_inline_code():
    policy = dict(HEADERS)[b"content-security-policy"].decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert rules["frame-ancestors"] == rules["form-action"] == rules["base-uri"] == "'none'"
    assert "unsafe" not in policy
    assert "http" not in policy
