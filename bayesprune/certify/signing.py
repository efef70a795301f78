"""Ed25519 signatures: who issued a certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bayesprune.certify.certificate import Certificate, canonical
from bayesprune.errors import CertificateError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM = "Ed25519"


def sign(certificate: Certificate, private_key: str | Path) -> Certificate:
    """A copy with a signature over everything else that it says.

    Args:
        certificate: to be signed; an older signature is replaced.
        private_key: a PEM file without a password: ``openssl genpkey -algorithm ed25519 -out key.pem``.

    Raises:
        CertificateError: the package is missing, or the file holds no such key.
    """
    key = _private_key(Path(private_key))
    signature = {
        "algorithm": ALGORITHM,
        "public_key": key.public_key().public_bytes_raw().hex(),
        "signature": key.sign(canonical(certificate.record)).hex(),
    }
    return Certificate({**certificate.record, "signature": signature})


def signed_by(certificate: Certificate, public_key: str | Path | None = None) -> tuple[bool, str]:
    """Whether a certificate's signature is right, and whose it is.

    Args:
        certificate: with or without a signature.
        public_key: a PEM file: ``openssl pkey -in key.pem -pubout -out public.pem``. Without it the
            signature is held against the key that the certificate itself names, which shows that nothing
            was changed since, and not who signed.

    Returns:
        Whether it holds, and why.

    Raises:
        CertificateError: the package is missing, or the file holds no such key.
    """
    _check_installed()
    found = certificate.record.get("signature")
    if not isinstance(found, dict):
        return False, "it is not signed"
    try:
        own = bytes.fromhex(found["public_key"])
        signature = bytes.fromhex(found["signature"])
    except (KeyError, ValueError, TypeError):
        return False, "its signature cannot be read"
    if public_key is not None and _public_key(Path(public_key)).public_bytes_raw() != own:
        return False, f"it is signed by another key, {own.hex()[:16]}…"
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(own).verify(signature, canonical(certificate.record))
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False, "it was changed after it was signed"
    whose = "the key given" if public_key is not None else f"the key {own.hex()[:16]}…, whoever has it"
    return True, f"signed by {whose}"


def _private_key(path: Path) -> Ed25519PrivateKey:
    _check_installed()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise CertificateError(f"{path}: cannot be read as a private key ({problem}). {_HOW}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise CertificateError(f"{path}: holds a key of another kind than Ed25519. {_HOW}")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    _check_installed()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise CertificateError(
            f"{path}: cannot be read as a public key ({problem}). Make it with: openssl pkey -in key.pem "
            "-pubout"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError(f"{path}: holds a key of another kind than Ed25519.")
    return key


_HOW = "Make one with: openssl genpkey -algorithm ed25519 -out key.pem"


def _check_installed() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise CertificateError(
            "Signatures need the package cryptography, not installed here. Install with: "
            "pip install cryptography."
        ) from None
