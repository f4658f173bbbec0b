"""A certificate authority for tests, on files: what TLS with client certificates needs."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """Issues certificates for a day into a directory; `file` is its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("test authority")
        built = _certificate(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.file = directory / "ca.pem"
        self.file.write_bytes(_pem(built.sign(self._key, hashes.SHA256())))

    def issue(self, name: str, *names: x509.GeneralName) -> tuple[Path, Path]:
        """Return the files of a certificate with these alternative names, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        built = _certificate(_name(name), self._name, key)
        if names:
            built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate, private = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        certificate.write_bytes(_pem(built.sign(self._key, hashes.SHA256())))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, private

    def server(self) -> tuple[Path, Path]:
        """Return the files of a certificate for 127.0.0.1, and of its key."""
        return self.issue("server", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))

    def client(self, name: str | None, *uris: str) -> ssl.SSLContext:
        """Return what a client with such URIs in its certificate uses; without a name: none."""
        trusting = ssl.create_default_context(cafile=str(self.file))
        if name is not None:
            names = [x509.UniformResourceIdentifier(uri) for uri in uris]
            trusting.load_cert_chain(*self.issue(name, *names))
        return trusting


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
