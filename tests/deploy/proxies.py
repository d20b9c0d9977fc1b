"""The real Caddy and nginx, with the configurations of `configs/deploy/proxy`, on ports of a test's own.

What is changed of a configuration: names, ports, and where certificates and logs lie.
"""

import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.fixtures.platform import ROOT, free_ports, wait_until

FOLDER = ROOT / "configs" / "deploy" / "proxy"
NAME = "localhost"
"""The site's name, instead of `api.example.com`: clients resolve it to loopback."""


@dataclass(frozen=True)
class Proxy:
    """A running proxy. `authority` is the certificate that its own is verified by."""

    port: int
    plain_port: int
    authority: Path

    def client(self, address: str = "127.0.0.2", http2: bool = True) -> httpx.Client:
        """A client that comes from this address and speaks HTTP/2 where the proxy does."""
        context = ssl.create_default_context(cafile=str(self.authority))
        transport = httpx.HTTPTransport(verify=context, http2=http2, local_address=address)
        return httpx.Client(transport=transport, base_url=f"https://{NAME}:{self.port}", timeout=60)


@contextmanager
def caddy(upstreams: list[int], folder: Path) -> Iterator[Proxy]:
    """Caddy before the API at these ports. It issues its own certificates, since no authority knows the name."""
    port, plain = free_ports(2)
    options = (
        f"\tlocal_certs\n\tskip_install_trust\n\tadmin off\n\thttp_port {plain}\n\thttps_port {port}\n\tservers {{"
    )
    text = (FOLDER / "Caddyfile").read_text().replace("\tservers {", options, 1)
    configuration = folder / "Caddyfile"
    configuration.write_text(text)
    environment = {
        **os.environ,
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "API_NAME": NAME,
        "API_UPSTREAMS": " ".join(f"127.0.0.1:{each}" for each in upstreams),
    }
    command = [program("caddy"), "run", "--config", str(configuration), "--adapter", "caddyfile"]
    authority = folder / "data" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    with _running(command, environment, folder / "caddy.log", Proxy(port, plain, authority)) as proxy:
        yield proxy


@contextmanager
def nginx(upstreams: list[int], folder: Path) -> Iterator[Proxy]:
    """nginx before the API at these ports."""
    port, plain = free_ports(2)
    certificate, key = _certificate(folder)
    (folder / "logs").mkdir()
    text = (FOLDER / "nginx.conf").read_text()
    changes = {
        r"^user .*$": "user root;" if os.getuid() == 0 else "",
        r"^pid .*$": f"pid {folder}/nginx.pid;\ndaemon off;",
        r"^error_log .*$": f"error_log {folder}/nginx.log warn;",
        r"^\t\tlisten \[::\].*$": "",
        r"listen 443": f"listen 127.0.0.1:{port}",
        r"listen 80": f"listen 127.0.0.1:{plain}",
        r"ssl_certificate .*;": f"ssl_certificate {certificate};",
        r"ssl_certificate_key .*;": f"ssl_certificate_key {key};",
        r"api\.example\.com": NAME,
        r"127\.0\.0\.1:8080\b": f"127.0.0.1:{upstreams[0]}",
        r"127\.0\.0\.1:8081\b": f"127.0.0.1:{upstreams[1]}",
    }
    for pattern, new in changes.items():
        text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
        assert count, pattern
    configuration = folder / "nginx.conf"
    configuration.write_text(text)
    command = [program("nginx"), "-p", str(folder), "-c", str(configuration)]
    with _running(command, dict(os.environ), folder / "nginx.out", Proxy(port, plain, certificate)) as proxy:
        yield proxy


def program(name: str) -> str:
    """The path of a proxy's program: of its wheel, or on the path."""
    folder = str(Path(sys.executable).parent)
    found = shutil.which(name, path=folder) or shutil.which(f"{name}-wheel", path=folder)
    assert found, f"no {name}: `make install` installs its wheel"
    return found


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path, proxy: Proxy) -> Iterator[Proxy]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return proxy.authority.exists() and proxy.client().get("/health").status_code > 0
        except httpx.TransportError:
            return False

    try:
        wait_until("the proxy", is_up)
        yield proxy
    finally:
        process.terminate()
        process.wait(timeout=60)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for the site, signed by its own key, and that key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths[1].write_bytes(key.private_bytes(*pem))
    return paths
