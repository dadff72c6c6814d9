"""The server's own certificate authority: made once, and the server's certificate issued and renewed by it.

Input: the data folder, the names that callers use for the server, the time. Output: four files in DIR/tls. Who trusts
``ca.pem`` trusts every certificate that ``ca.key`` signs, so that key is mode 0400 and never leaves the folder.
"""

import datetime as dt
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ringfence.policy.errors import Invalid, OperatorError
from ringfence.store.folder import explained, make_folder, write_whole
from ringfence.wire.join import fingerprint_of

CA_LIFE: Final = dt.timedelta(days=3650)
SERVER_LIFE: Final = dt.timedelta(days=90)
RENEWED_BEFORE_END: Final = dt.timedelta(days=30)
_BACKDATED: Final = dt.timedelta(hours=1)  # for callers whose clocks are a little behind

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(\*\.)?({_LABEL}\.)*{_LABEL}")
_Name = x509.DNSName | x509.IPAddress


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate with the chain up to its CA, and its private key, both in PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA in DIR/tls of a data folder, if ``make`` was ever called there."""

    folder: Path  # DIR/tls

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def server(self) -> TlsFiles:
        return TlsFiles(self.folder / "server.pem", self.folder / "server.key")

    def pem(self) -> bytes:
        """The CA's certificate, for who is to trust it."""
        with explained(self.folder):
            return self.certificate.read_bytes()

    def fingerprint(self) -> str:
        """The SHA-256 of the CA's certificate, in hex."""
        return fingerprint_of(_load_certificate(self.certificate).public_bytes(Encoding.DER))

    def names(self) -> list[str]:
        """The names and addresses that the server's certificate is for."""
        return [str(name.value) for name in _names_of(_load_certificate(self.server.certificate))]

    def ends(self) -> dt.datetime:
        """When the server's certificate ends."""
        return _load_certificate(self.server.certificate).not_valid_after_utc

    def make(self, names: list[str], now: dt.datetime) -> None:
        """The CA, unless it is there, and a fresh certificate for the server under these names.

        Raises:
            Invalid: a name is neither a host name nor an address.
            OperatorError: the folder cannot be written, or the CA's key is missing.
        """
        wanted = [_parse_name(name) for name in names]
        with explained(self.folder):
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_folder(self.folder)
            if not self.certificate.exists():
                self._make_ca(now)
        self._issue(wanted, now)

    def renew(self, now: dt.datetime) -> bool:
        """Whether the server's certificate was near its end, and has been renewed under the same names."""
        present = _load_certificate(self.server.certificate)
        if present.not_valid_after_utc - now > RENEWED_BEFORE_END:
            return False
        self._issue(_names_of(present), now)
        return True

    def _make_ca(self, now: dt.datetime) -> None:
        """The key first: a certificate without its key would be a CA that can sign nothing."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ringfence CA")])
        made = (
            _builder(key, name, now, CA_LIFE)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_whole(self.folder / "ca.key", _key_pem(key), mode=0o400)
        write_whole(self.certificate, made.public_bytes(Encoding.PEM), mode=0o644)

    def _issue(self, names: list[_Name], now: dt.datetime) -> None:
        ca, ca_key = _load_certificate(self.certificate), self._load_ca_key()
        end = min(now + SERVER_LIFE, ca.not_valid_after_utc)
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            _builder(key, x509.Name([]), now, end - now)
            .issuer_name(ca.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)  # there is no other name in it
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        chain = made.public_bytes(Encoding.PEM) + ca.public_bytes(Encoding.PEM)
        with explained(self.folder):
            write_whole(self.server.key, _key_pem(key), mode=0o400)
            write_whole(self.server.certificate, chain, mode=0o644)

    def _load_ca_key(self) -> ec.EllipticCurvePrivateKey:
        path = self.folder / "ca.key"
        with explained(self.folder):
            content = path.read_bytes()
        try:
            key = load_pem_private_key(content, None)
        except ValueError as error:
            raise OperatorError(f"reading {path}", f"{error}; restore it from a backup") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise OperatorError(f"reading {path}", "this is no key that ringfence made; restore it from a backup")
        return key


def authority_of(data: Path) -> Authority:
    """The own CA of a data folder, made or not."""
    return Authority(data / "tls")


def find_authority(data: Path) -> Authority | None:
    """The own CA of a data folder; None when it has none."""
    authority = authority_of(data)
    with explained(data):
        return authority if authority.server.certificate.exists() else None


def _builder(
    key: ec.EllipticCurvePrivateKey, subject: x509.Name, now: dt.datetime, life: dt.timedelta
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _load_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file."""
    with explained(path.parent):
        content = path.read_bytes()
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise OperatorError(f"reading {path}", f"it is no certificate in PEM: {error}") from error


def _names_of(certificate: x509.Certificate) -> list[_Name]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [name for name in found if isinstance(name, x509.DNSName | x509.IPAddress)]


def _parse_name(text: str) -> _Name:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(text):
        raise Invalid(f"expected a host name or an address that callers use, got {ascii(text)[:80]}", field="--name")
    return x509.DNSName(text)
