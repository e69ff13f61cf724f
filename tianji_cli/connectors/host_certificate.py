"""Host keys signed by an authority from `@cert-authority` lines of known_hosts."""

from __future__ import annotations

import base64
import time

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from tianji_cli.connectors.known_hosts import Trust, kind_of, names_match


def certificate_problem(blob: bytes, trust: Trust, host: str, now_s: float | None = None) -> str:
    """Why a host's certificate is not trusted; empty if it is.

    Args:
        blob: The certificate in wire format.
        trust: The known keys of the host.
        host: Its name or HostKeyAlias, which the certificate must be for.
        now_s: Unix time; None for now.
    """
    line = kind_of(blob).encode() + b" " + base64.b64encode(blob)
    try:
        certificate = load_ssh_public_identity(line)
        if not isinstance(certificate, SSHCertificate):
            return "it is no certificate"
        signer = certificate.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        own = certificate.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        certificate.verify_cert_signature()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        return f"its signature cannot be verified: {error}"
    authority, key = (base64.b64decode(text.split()[1]) for text in (signer, own))
    if authority in trust.revoked or key in trust.revoked:
        return "it is revoked"
    if authority not in {line.blob for line in trust.authorities}:
        return "the authority that signed it is not trusted"
    if certificate.type is not SSHCertificateType.HOST:
        return "it is for a user, not for a host"
    now_s = time.time() if now_s is None else now_s
    if not certificate.valid_after <= now_s < certificate.valid_before:
        return "it is not valid at this time"
    if certificate.critical_options:
        return "it has options that are not understood"
    principals = [name.decode("utf-8", "replace") for name in certificate.valid_principals]
    if principals and not any(names_match(name, host) for name in principals):
        return f"it is for {', '.join(principals)}, not for {host}"
    return ""
