"""The ciphers that messages between hosts are sealed with, their keys and their nonces."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from functools import cache

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CIPHERS = (AESGCM, ChaCha20Poly1305)
"""By their number on the wire; new ones are added at the end."""
KEY_BYTES = 32
_NONCE = struct.Struct("<QI")
_LAST = 2**31
_SAMPLE_BYTES = 2**16

Cipher = AESGCM | ChaCha20Poly1305


def nonce_of(number: int, index: int, count: int) -> bytes:
    """Of one segment of a message with so many."""
    return _NONCE.pack(number, index | _LAST * (index == count - 1))


def cipher_of(secret: bytes, names: Sequence[bytes], choice: int, stream: bytes) -> Cipher:
    """For one direction of a connection."""
    return CIPHERS[choice](derive(secret, "stream", *names, bytes([choice]), stream))


def derive(secret: bytes, purpose: str, *names: bytes) -> bytes:
    """A key for one purpose. Each name follows its length, so that no two lists are alike."""
    words = (b"tianji wire 1", purpose.encode(), *names)
    info = b"".join(len(word).to_bytes(2, "little") + word for word in words)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)


@cache
def fastest_cipher() -> int:
    """Number of the cipher that is fastest here, by sealing some bytes with each: without
    instructions for AES that is ChaCha20-Poly1305. Receivers take both."""

    def seconds(kind: type[AESGCM] | type[ChaCha20Poly1305]) -> float:
        cipher, nonce, sample = kind(bytes(KEY_BYTES)), nonce_of(0, 0, 1), bytes(_SAMPLE_BYTES)
        times = []
        for _ in range(3):
            start_s = time.perf_counter()
            cipher.encrypt(nonce, sample, None)
            times.append(time.perf_counter() - start_s)
        return min(times)

    return min(range(len(CIPHERS)), key=lambda number: seconds(CIPHERS[number]))
