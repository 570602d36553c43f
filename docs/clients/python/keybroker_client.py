"""A VNFCI's side of keybroker in Python: claim, unseal, install, confirm.

1. A recipient key is made and stored (0600) with the request ids, before anything is asked.
2. Claim over mutual TLS with the X.509 initial credential; on "not now" again, with the same ids and key.
3. Every envelope is opened (docs/envelope.md), each key checked against its certificate, each certificate against
   the trust anchor.
4. SLOT/{key.pem,cert.pem,chain.pem} are written.
5. Each key signs the confirmation. Only from its acknowledgement on may the credentials be used.
6. The recipient key is deleted.

After a crash the same command goes on where it was. One-time tokens are not supported: their proof needs the TLS
exporter, which grpcio does not give out.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import uuid
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

X963 = "ECDH_P256_X963SHA256_KWP"
CBCENC = "ECDH_P256_CBCENC_KWP_V1"
RSA_WRAP = "RSA_AES_KEY_WRAP"
SUITES = [X963, CBCENC]
OAEP_HASHES = {"SHA-256": hashes.SHA256, "SHA-1": hashes.SHA1}
PROTO = Path(__file__).resolve().parents[3] / "proto"


class ClientError(Exception):
    """What went wrong, in a sentence."""


# The envelope (docs/envelope.md)


def labelled_fields(label, fields):
    """The ASCII label, then each field as its length (4 bytes, big-endian) and its bytes."""
    return label.encode() + b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def sha256(data):
    return hashlib.sha256(data).digest()


def context(suite, tenant, request_id, credential_id, certificate_sha256, recipient_point, hsm_point):
    """The 32 bytes that bind an envelope to one claim."""
    texts = [text.encode() for text in (suite, tenant, request_id, credential_id)]
    fields = texts + [certificate_sha256, recipient_point, hsm_point]
    return sha256(labelled_fields("keybroker-envelope-v1", fields))


def wrapping_key(suite, secret, ctx):
    """W, of the ECDH secret Z and the context."""
    if suite == X963:
        return X963KDF(algorithm=hashes.SHA256(), length=32, sharedinfo=ctx).derive(secret)
    if suite == CBCENC:
        encryptor = Cipher(algorithms.AES256(secret), modes.CBC(bytes(16))).encryptor()
        return encryptor.update(ctx) + encryptor.finalize()
    raise ClientError(f"the broker chose the suite {suite!r}, which was not offered")


def trim_der(data):
    """Cuts what follows the outer DER SEQUENCE: at most seven zero bytes."""
    if len(data) < 4 or data[0] != 0x30 or data[1] == 0x80 or data[1] > 0x82:
        raise ClientError("the envelope's content is not a PKCS#8 private key")
    octets = data[1] - 0x80 if data[1] > 0x80 else 0
    length = int.from_bytes(data[2 : 2 + octets], "big") if octets else data[1]
    end = 2 + octets + length
    if end > len(data) or len(data) - end > 7 or any(data[end:]):
        raise ClientError("the envelope's content is not a PKCS#8 private key")
    return data[:end]


def point(public_key):
    """An EC public key as uncompressed point."""
    encoding, form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    return public_key.public_bytes(encoding, form)


def recipient_public(recipient):
    """What is sent of the recipient key, and hashed: a P-256 point, or an RSA key's SubjectPublicKeyInfo."""
    public_key = recipient.public_key()
    return spki(public_key) if isinstance(recipient, rsa.RSAPrivateKey) else point(public_key)


def agreed_data_key(recipient, suite, ctx, hsm_point, wrapped_data_key):
    hsm_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), hsm_point)
    key = wrapping_key(suite, recipient.exchange(ec.ECDH(), hsm_key), ctx)
    return keywrap.aes_key_unwrap_with_padding(key, wrapped_data_key)


def oaep_data_key(recipient, oaep_hash, wrapped_data_key):
    if oaep_hash not in OAEP_HASHES:
        raise ClientError(f"the broker names the OAEP hash {oaep_hash!r}, which is not known here")
    algorithm = OAEP_HASHES[oaep_hash]()
    return recipient.decrypt(wrapped_data_key, padding.OAEP(padding.MGF1(algorithm), algorithm, None))


def unseal(recipient, suite, ctx, hsm_point, wrapped_data_key, wrapped_private_key, oaep_hash=""):
    """The private key, PKCS#8 in DER."""
    is_rsa = isinstance(recipient, rsa.RSAPrivateKey)
    if is_rsa != (suite == RSA_WRAP):
        raise ClientError(f"the broker chose the suite {suite!r}, which does not fit the recipient key")
    try:
        if is_rsa:
            data_key = oaep_data_key(recipient, oaep_hash, wrapped_data_key)
        else:
            data_key = agreed_data_key(recipient, suite, ctx, hsm_point, wrapped_data_key)
        return trim_der(keywrap.aes_key_unwrap_with_padding(data_key, wrapped_private_key))
    except (keywrap.InvalidUnwrap, ValueError):
        raise ClientError("the envelope is not for this recipient key and claim, or was changed") from None


def spki(public_key):
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


# Checks and signatures


def check_chain(chain, anchors):
    """Each certificate issued by the next, the last by a trust anchor, all of them valid now."""
    now = datetime.now(timezone.utc)
    anchor = next((anchor for anchor in anchors if anchor.subject == chain[-1].issuer), None)
    if anchor is None:
        raise ClientError(f"{chain[-1].issuer.rfc4514_string()} is not the trust anchor")
    for certificate, issuer in zip(chain, [*chain[1:], anchor]):
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise ClientError(f"{certificate.subject.rfc4514_string()} is not valid now")
        if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise ClientError(f"{issuer.subject.rfc4514_string()} is no CA")
        certificate.verify_directly_issued_by(issuer)


def confirm_message(claim_id, certificate_der, recipient_public_key):
    fields = [claim_id.encode(), sha256(certificate_der), sha256(recipient_public_key)]
    return labelled_fields("keybroker-confirm-v1", fields)


def sign(key, message):
    """As the broker verifies it: ECDSA with SHA-256 (P-384: SHA-384) in DER, RSA-PSS with SHA-256 and 32 bytes salt."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    return key.sign(message, ec.ECDSA(hashes.SHA384() if key.curve.key_size == 384 else hashes.SHA256()))


# Files


def write(path, data, mode):
    """Writes a file whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def private_pem(key):
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def pem(certificates):
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def new_recipient_key(suite):
    if suite == RSA_WRAP:
        return rsa.generate_private_key(65537, 3072)
    return ec.generate_private_key(ec.SECP256R1())


class Claim:
    """What is kept in DIR while a claim is under way: recipient.pem and claim.json."""

    def __init__(self, directory, suite=None):
        self.directory = directory
        self.key_file = directory / "recipient.pem"
        self.state_file = directory / "claim.json"
        if self.state_file.exists():
            self.state = json.loads(self.state_file.read_text())
            self.recipient = serialization.load_pem_private_key(self.key_file.read_bytes(), None)
        else:
            self.recipient = new_recipient_key(suite)
            write(self.key_file, private_pem(self.recipient), 0o600)
            self.state = {"request_id": str(uuid.uuid4()), "confirm_request_id": str(uuid.uuid4())}
            self.store()
        self.public = recipient_public(self.recipient)
        self.suites = [RSA_WRAP] if isinstance(self.recipient, rsa.RSAPrivateKey) else SUITES
        if suite is not None:
            if suite not in self.suites:
                raise ClientError(f"{directory} holds a claim with a recipient key that does not fit {suite}")
            self.suites = [suite]

    def recipient_fields(self):
        """The ClaimRequest's fields for the recipient key."""
        is_rsa = isinstance(self.recipient, rsa.RSAPrivateKey)
        return {"recipient_rsa_public_key_der" if is_rsa else "recipient_public_key": self.public}

    def store(self):
        write(self.state_file, json.dumps(self.state, indent=2).encode(), 0o600)

    def end(self):
        self.state_file.unlink()
        self.key_file.unlink()

    def install(self, answer, anchors):
        """Opens and checks all of an answer, then writes it."""
        opened = [(sealed.slot, *self.open(answer, sealed, anchors)) for sealed in answer.credentials]
        for slot, key, chain in opened:
            if not slot or Path(slot).name != slot:
                raise ClientError(f"the slot {slot!r} is no file name")
            write(self.directory / slot / "cert.pem", pem(chain[:1]), 0o644)
            write(self.directory / slot / "chain.pem", pem(chain), 0o644)
            write(self.directory / slot / "key.pem", private_pem(key), 0o600)
        self.state |= {"claim_id": answer.claim_id, "slots": [slot for slot, _, _ in opened]}
        self.store()

    def open(self, answer, sealed, anchors):
        ctx = context(
            answer.suite,
            answer.tenant,
            answer.context_request_id,
            sealed.credential_id,
            sha256(sealed.certificate_der),
            self.public,
            sealed.hsm_public_key,
        )
        pkcs8 = unseal(
            self.recipient,
            answer.suite,
            ctx,
            sealed.hsm_public_key,
            sealed.wrapped_data_key,
            sealed.wrapped_private_key,
            sealed.oaep_hash,
        )
        key = serialization.load_der_private_key(pkcs8, None)
        chain = [x509.load_der_x509_certificate(der) for der in (sealed.certificate_der, *sealed.chain_der)]
        # KWP has no associated data, and RSA_AES_KEY_WRAP no context: only this ties the key to the certificate.
        if spki(key.public_key()) != spki(chain[0].public_key()):
            raise ClientError(f"slot {sealed.slot}: the unsealed key is not the certificate's")
        check_chain(chain, anchors)
        return key, chain

    def signatures(self):
        """(slot, signature) by every installed key."""
        for slot in self.state["slots"]:
            key = serialization.load_pem_private_key((self.directory / slot / "key.pem").read_bytes(), None)
            certificate = x509.load_pem_x509_certificate((self.directory / slot / "cert.pem").read_bytes())
            der = certificate.public_bytes(serialization.Encoding.DER)
            yield slot, sign(key, confirm_message(self.state["claim_id"], der, self.public))

    def withdraw(self):
        """The broker destroyed the claim: its keys must not be used."""
        for slot in self.state["slots"]:
            (self.directory / slot / "key.pem").unlink(missing_ok=True)
        self.end()


# gRPC


def load_proto(directory):
    """Messages and stub of CredentialService, compiled from the .proto file into a temporary directory."""
    from grpc_tools import protoc

    out = tempfile.mkdtemp(prefix="keybroker-proto-")
    try:
        well_known = resources.files("grpc_tools") / "_proto"
        options = [f"-I{directory}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
        if protoc.main(["protoc", *options, "keybroker/v1/credential.proto"]) != 0:
            raise ClientError(f"keybroker/v1/credential.proto in {directory} does not compile; give --proto")
        sys.path.insert(0, out)
        messages = importlib.import_module("keybroker.v1.credential_pb2")
        services = importlib.import_module("keybroker.v1.credential_pb2_grpc")
    finally:
        if out in sys.path:
            sys.path.remove(out)
        shutil.rmtree(out)
    return messages, services.CredentialServiceStub


def patiently(call, request, patience):
    """Repeats a call that the broker cannot serve now, with the same request."""
    import grpc

    again = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
    end, pause = time.monotonic() + patience, 0.5
    while True:
        try:
            return call(request, timeout=60)
        except grpc.RpcError as error:
            if error.code() not in again or time.monotonic() + pause > end:
                raise
            print(f"{error.code().name}: {error.details()}; again in {pause:.1f} s", file=sys.stderr)
            time.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(pause * 2, 8)


def run(arguments):
    import grpc

    messages, stub_of = load_proto(arguments.proto)
    root = arguments.trust_anchor.read_bytes()
    anchors = x509.load_pem_x509_certificates(root)
    claim = Claim(arguments.out, arguments.suite)
    credentials = grpc.ssl_channel_credentials(root, arguments.key.read_bytes(), arguments.cert.read_bytes())
    with grpc.secure_channel(arguments.server.removeprefix("https://"), credentials) as channel:
        stub = stub_of(channel)
        if "claim_id" not in claim.state:
            request = messages.ClaimRequest(
                request_id=claim.state["request_id"], suites=claim.suites, **claim.recipient_fields()
            )
            claim.install(patiently(stub.Claim, request, arguments.patience), anchors)
        request = messages.ConfirmRequest(
            request_id=claim.state["confirm_request_id"],
            claim_id=claim.state["claim_id"],
            signatures=[messages.KeySignature(slot=s, signature=signature) for s, signature in claim.signatures()],
        )
        try:
            patiently(stub.Confirm, request, arguments.patience)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                claim.withdraw()
            raise
    claim.end()
    return {"claim_id": claim.state["claim_id"], "slots": claim.state["slots"], "stage": "CONFIRMED"}


def main():
    parser = argparse.ArgumentParser(description="Claims a VNFCI's credentials from keybroker and confirms them.")
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="the bootstrap listener")
    parser.add_argument("--trust-anchor", required=True, type=Path, metavar="PEM", help="the root to be trusted")
    parser.add_argument("--cert", required=True, type=Path, metavar="PEM", help="initial credential, leaf first")
    parser.add_argument("--key", required=True, type=Path, metavar="PEM", help="its private key")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for SLOT/{key,cert,chain}.pem")
    parser.add_argument("--suite", choices=[*SUITES, RSA_WRAP], help="have the keys sealed by this suite only")
    parser.add_argument("--proto", type=Path, default=PROTO, metavar="DIR", help="holds keybroker/v1/")
    parser.add_argument("--patience", type=float, default=300, metavar="SECONDS", help="how long to try again")
    arguments = parser.parse_args()
    import grpc

    try:
        print(json.dumps(run(arguments)))
    except grpc.RpcError as error:
        print(f"error: {error.code().name}: {error.details()}", file=sys.stderr)
        # Refused, not available now, failed: the exit codes of the keybroker command.
        refused = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
        later = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
        sys.exit(3 if error.code() in refused else 4 if error.code() in later else 1)
    except (ClientError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
