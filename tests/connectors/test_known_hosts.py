"""Files of trusted host keys as people have them, and keys judged by them."""

from __future__ import annotations

import base64
import hmac

import pytest

from tianji_cli.connectors.host_keys import accept_command, files_of, key_types, writable_file
from tianji_cli.connectors.known_hosts import Trust, read_lines, trust_in
from tianji_cli.connectors.target import Target


def blob(kind: str = "ssh-ed25519", content: bytes = b"one") -> bytes:
    name = kind.encode()
    return len(name).to_bytes(4, "big") + name + len(content).to_bytes(4, "big") + content


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


ONE, TWO = blob(content=b"one"), blob(content=b"two")
RSA = blob("ssh-rsa", b"three")
KEY = f"ssh-ed25519 {text(ONE)}"


def hashed(name: str, salt: bytes = b"s" * 20) -> str:
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{text(salt)}|{text(digest)}"


def judged(line: str | bytes, name: str = "box", key: bytes = ONE, bare: str | None = None) -> str:
    data = line if isinstance(line, bytes) else line.encode()
    return trust_in([data], name, bare).judge("ssh-ed25519", key)


@pytest.mark.parametrize(
    "line",
    [
        f"box {KEY}",
        f"box  {KEY}",
        f"box\t{KEY}",
        f"  \tbox \t ssh-ed25519 \t {text(ONE)}   a comment of words\r",
        f"other,box,10.0.0.1 {KEY}",
        f"BOX {KEY}",
        f"b?x {KEY}",
        f"* {KEY}",
        f"*x,!old {KEY}",
        f"{hashed('box')} {KEY}",
        f"{hashed('box', b't' * 20)} {KEY}",
        f"# comment\n\nbroken\nbox ssh-ed25519 ###\n@what box {KEY}\nbox {KEY}",
        f"box ssh-ed25519 {text(TWO)}\nbox {KEY}",
    ],
)
def test_lines_that_trust_a_key(line: str) -> None:
    assert judged(line) == "trusted"


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"other {KEY}",
        f"!box,* {KEY}",
        f"*,!box {KEY}",
        f"box.lab {KEY}",
        f"[box]:2222 {KEY}",
        f"{hashed('other')} {KEY}",
        f"|2|x|y {KEY}",
        "|1|not base64|x " + KEY,
        f"#box {KEY}",
        "box ssh-ed25519",
        "box ssh-ed25519 AAAA",
        f"box ssh-rsa {text(ONE)}",
        "box 1024 35 1234567890",
        f"@unknown box {KEY}",
        f"@cert-authority box {KEY}",
    ],
)
def test_lines_that_say_nothing_of_a_key(line: str) -> None:
    assert judged(line) == "unknown"


def test_latin_1_and_other_bytes_in_comments() -> None:
    data = b"# caf\xe9 \x00\xff\n" + f"box {KEY} caf\u00e9".encode("latin-1") + b"\n\xfe\xff\n"
    assert judged(data) == "trusted"


def test_another_key_of_its_type_is_a_change_and_of_another_type_is_not() -> None:
    assert judged(f"box {KEY}", key=TWO) == "changed"
    assert judged(f"box ssh-rsa {text(RSA)}") == "unknown"


@pytest.mark.parametrize("names", ["box", "*", hashed("box")])
def test_a_revoked_key_is_refused_though_it_is_trusted_elsewhere(names: str) -> None:
    assert judged(f"box {KEY}\n@revoked {names} {KEY}") == "revoked"
    assert judged(f"@revoked\t{names}  {KEY}\nbox {KEY}") == "revoked"
    assert judged(f"box {KEY}\n@revoked {names} ssh-ed25519 {text(TWO)}") == "trusted"
    assert judged(f"box {KEY}\n@revoked other {KEY}") == "trusted"


def test_ports() -> None:
    name = "[box]:2222"
    assert judged(f"[box]:2222 {KEY}", name) == "trusted"
    assert judged(f"{hashed(name)} {KEY}", name) == "trusted"
    assert judged(f"[*]:2222 {KEY}", name) == "trusted"
    assert judged(f"box {KEY}", name, bare="box") == "trusted"
    assert judged(f"[box]:2222 ssh-ed25519 {text(TWO)}\nbox {KEY}", name, bare="box") == "changed"
    assert judged(f"[::1]:2222 {KEY}", "[::1]:2222") == "trusted"
    assert judged(f"@revoked box {KEY}\n[box]:2222 ssh-rsa {text(RSA)}", name, bare="box") == (
        "unknown"
    )


def test_several_files_count_together() -> None:
    trust = trust_in([f"box ssh-rsa {text(RSA)}".encode(), f"box {KEY}".encode()], "box")
    assert trust.kinds == ["ssh-rsa", "ssh-ed25519"]
    assert trust.judge("ssh-rsa", RSA) == "trusted"


def test_any_bytes_are_read_without_an_error() -> None:
    sound = f"@revoked *,!x,|1|a|b {KEY} c\n".encode()
    for place in range(len(sound)):
        for byte in (0, 10, 32, 124, 255):
            list(read_lines(sound[:place] + bytes([byte]) + sound[place + 1 :]))


def test_a_host_is_asked_first_for_what_could_be_trusted() -> None:
    offered = ("ssh-ed25519", "rsa-sha2-512", "ssh-ed25519-cert-v01@openssh.com")
    known = trust_in([f"box ssh-rsa {text(RSA)}".encode()], "box")
    assert key_types(known, offered)[0] == "rsa-sha2-512"
    signed = trust_in([f"@cert-authority * {KEY}".encode()], "box")
    assert key_types(signed, offered)[0] == offered[2]
    assert key_types(Trust(), offered) == offered


def target(*known_hosts: str, **more: object) -> Target:
    return Target(
        alias="a",
        hostname="box",
        port=22,
        user="u",
        known_hosts=known_hosts,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("files", [("/dev/null",), ("none",), ("/dev/null", "none")])
def test_advice_never_writes_where_nothing_is_kept(files: tuple[str, ...]) -> None:
    advice = accept_command(target(*files))
    assert "/dev/null" not in advice
    assert ">> none" not in advice
    assert "known_hosts:" in advice, "the inventory has to name the file as well"
    assert "none" not in files_of(target(*files))


def test_advice_for_the_usual_case_and_the_first_file_that_keeps(tmp_path) -> None:
    file = tmp_path / "kh"
    assert accept_command(target(str(file))) == f"ssh-keyscan box >> {file}"
    assert writable_file(target("/dev/null", str(file))) == (str(file), True)
    deep = tmp_path / "no" / "kh"
    assert accept_command(target(str(deep))).startswith(f"mkdir -p -m 700 {deep.parent} && ")
    alias = accept_command(target(str(file), host_key_alias="rack"))
    assert "sed" in alias
    assert "rack" in alias
    proxied = accept_command(target(str(file), proxy_command="nc x"))
    assert proxied.startswith("ssh -o StrictHostKeyChecking=ask")
