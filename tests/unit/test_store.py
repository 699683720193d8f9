"""The check of an MLflow server speaks to it as MLflow's own client does."""

import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mlflow import MlflowClient

from cnnlib.config import StoreSettings
from cnnlib.errors import TrackingError
from pipelines.tracking.store import ask_server, reach_store
from pipelines.tracking.tracker import Tracker


class Healthy(BaseHTTPRequestHandler):
    """Answers as MLflow does, or as a proxy that asks for a login."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Write a self-signed certificate for 127.0.0.1 and its key into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mlflow")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path / "mlflow.pem"
    file.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def server(certificate: Path) -> Iterator[str]:
    """A server over TLS; its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with HTTPServer(("127.0.0.1", 0), Healthy) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_server_with_a_private_certificate_answers(
    server: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask_server(server, 10).startswith("its certificate is not trusted: set MLFLOW_TRACKING_SERVER_CERT_PATH")
    with pytest.raises(TrackingError, match="does not answer .its certificate is not trusted") as refused:
        reach_store(StoreSettings(uri=server))
    assert "\n" not in refused.value.message
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    assert ask_server(server, 10) == ""
    monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    assert reach_store(StoreSettings(uri=server)) == server


@pytest.mark.parametrize("status", [200, 401, 403, 404, 500])
def test_any_answer_counts(server: str, certificate: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    monkeypatch.setattr(Healthy, "status", status)
    assert ask_server(server, 10) == ""


def test_server_that_is_not_there_is_named() -> None:
    with HTTPServer(("127.0.0.1", 0), Healthy) as listening:
        port = listening.server_port
    assert "Error" in ask_server(f"http://127.0.0.1:{port}", 10)


def test_artifacts_that_cannot_be_written_are_one_line(tmp_path: Path, new_store: Callable[[Path], str]) -> None:
    client = MlflowClient(new_store(tmp_path))
    (tmp_path / "artifacts").write_text("a file where the store would make a folder")
    experiment = client.create_experiment("blocked", artifact_location=(tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    (tmp_path / "kept").mkdir()
    with pytest.raises(TrackingError, match=f"are kept in file://{tmp_path}/artifacts/.*something there cannot"):
        Tracker(run, experiment, client.tracking_uri).log_rate_sweep(tmp_path / "kept")
