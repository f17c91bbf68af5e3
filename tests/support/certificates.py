"""An authority and certificates of a test's own, as PEM files: nothing that could expire, leak or be fetched.

ca = make_ca(tmp_path)
server = ca.server()                  # for 127.0.0.1 and localhost
client = ca.client("the-bridge")     # for mutual TLS
"""

import datetime as dt
import ssl
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Certificate:
    """A certificate with its chain, and its private key as PKCS 8, which Java reads too."""

    certfile: Path
    keyfile: Path


class Authority:
    """Signs certificates and writes them into its directory.

    Attributes:
        cafile: Its own certificate (PEM), for those who trust it.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._ca = trustme.CA(organization_name=name)
        self._issued = 0
        self.cafile = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.cafile))

    def server(self, *names: str, expires: dt.datetime | None = None) -> Certificate:
        """One for a server of these host names and addresses: the loopback's unless named."""
        return self._write(self._ca.issue_cert(*(names or LOOPBACK), not_after=expires))

    def client(self, common_name: str, *, password: str = "") -> Certificate:
        """One for a client, the key encrypted where a password is given."""
        return self._write(self._ca.issue_cert(f"{common_name}.example.org", common_name=common_name), password)

    def server_context(self, certificate: Certificate, *, client_required: bool = False) -> ssl.SSLContext:
        """For a Python server with that certificate; ``client_required``: clients need one of this authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.certfile, certificate.keyfile)
        if client_required:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.cafile)
        return context

    def _write(self, leaf: trustme.LeafCert, password: str = "") -> Certificate:
        self._issued += 1
        stem = f"{self.cafile.stem}-{self._issued}"
        written = Certificate(self._directory / f"{stem}.pem", self._directory / f"{stem}.key")
        written.certfile.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
        encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        written.keyfile.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return written


def make_bare_server(directory: Path) -> tuple[Path, Certificate]:
    """An authority and a server's certificate without key identifiers, as many private authorities make them."""
    now = dt.datetime.now(dt.UTC)

    def name_of(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def signed(subject: str, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType, critical: bool) -> bytes:
        builder = x509.CertificateBuilder(name_of("bare-authority"), name_of(subject), key.public_key(), 1)
        builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        return builder.add_extension(extension, critical).sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM)

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    cafile, written = directory / "bare.pem", Certificate(directory / "bare-server.pem", directory / "bare-server.key")
    cafile.write_bytes(signed("bare-authority", authority, x509.BasicConstraints(True, None), True))
    written.certfile.write_bytes(signed("bare-server", key, x509.SubjectAlternativeName(names), False))
    written.keyfile.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cafile, written


def make_ca(directory: Path, name: str = "test-authority") -> Authority:
    """A new authority whose files lie in ``directory``; two in one directory need two names."""
    return Authority(directory, name)
