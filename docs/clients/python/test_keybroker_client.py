"""The client's promises that need no broker: python -m unittest, in this directory."""

import json
import stat
import tempfile
import unittest
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import keybroker_client as client

VECTORS = Path(__file__).resolve().parents[3] / "tests" / "vectors" / "envelope.json"

# The context's vector by hand, so that a change of the vectors' file does not go unnoticed.
CONTEXT = {
    "suite": "ECDH_P256_X963SHA256_KWP",
    "tenant": "operator-a",
    "request": "018f3a52-6b1c-7c3e-9d2a-0123456789ab",
    "credential": "018f3a52-6b1d-7000-8000-ba9876543210",
    "certificate_sha256": "f9208983d74e466d740d90700ef072eb9593b0451bfc25ae4132e35ef00793e5",
    "context": "91d5860d6f544538869e83095332a212cef0e2b7f5696d6886a94ee9563d2980",
}


def load(vector):
    """The recipient key, and all fields but names in bytes. Without a point, those of the ECDH suites are empty."""
    names = ("certificate_sha256", "wrapped_dek", "wrapped_key", "pkcs8", "subject_public_key_info")
    data = {name: bytes.fromhex(vector[name]) for name in names}
    for name in ("recipient_point", "recipient_public_key", "hsm_point", "context", "wrapping_key"):
        data[name] = bytes.fromhex(vector.get(name, ""))
    private = vector["recipient_private_key"]
    if vector["suite"] == client.RSA_WRAP:
        return serialization.load_der_private_key(bytes.fromhex(private), None), data
    return ec.derive_private_key(int(private, 16), ec.SECP256R1()), data


def arguments(vector, data):
    """What unseal() takes beside the recipient."""
    blobs = [data[name] for name in ("context", "hsm_point", "wrapped_dek", "wrapped_key")]
    return [vector["suite"], *blobs, vector.get("oaep_hash", "")]


def flipped(values, index):
    changed = list(values)
    changed[index] = changed[index][:-1] + bytes([changed[index][-1] ^ 1])
    return changed


class Envelopes(unittest.TestCase):
    def setUp(self):
        self.vectors = json.loads(VECTORS.read_text())

    def test_every_vector_opens_to_its_key(self):
        names = [(vector["suite"], vector.get("oaep_hash", "")) for vector in self.vectors]
        rsa_names = [(client.RSA_WRAP, oaep_hash) for oaep_hash in client.OAEP_HASHES]
        self.assertEqual(names, [(suite, "") for suite in client.SUITES] + rsa_names)
        for vector in self.vectors:
            with self.subTest(vector["suite"]):
                recipient, data = load(vector)
                public = data["recipient_point"] or data["recipient_public_key"]
                self.assertEqual(client.recipient_public(recipient), public)
                if data["context"]:
                    texts = [vector[name] for name in ("suite", "tenant", "request", "credential")]
                    ctx = client.context(*texts, data["certificate_sha256"], public, data["hsm_point"])
                    self.assertEqual(ctx, data["context"])
                pkcs8 = client.unseal(recipient, *arguments(vector, data))
                self.assertEqual(pkcs8, data["pkcs8"])
                key = serialization.load_der_private_key(pkcs8, None)
                self.assertEqual(client.spki(key.public_key()), data["subject_public_key_info"])

    def test_the_context_is_the_documented_one(self):
        vector = self.vectors[0]
        for name, value in CONTEXT.items():
            self.assertEqual(vector[name], value)

    def test_another_claim_or_a_changed_envelope_does_not_open(self):
        for vector in self.vectors:
            recipient, data = load(vector)
            good = arguments(vector, data)
            if vector["suite"] == client.RSA_WRAP:
                other = rsa.generate_private_key(65537, 2048)
                # No context: another claim is not noticed. Another hash is.
                wrong = [[*good[:5], "SHA-1" if good[5] == "SHA-256" else "SHA-256"], [*good[:5], ""]]
            else:
                other = ec.generate_private_key(ec.SECP256R1())
                wrong = [[good[0], bytes(32), *good[2:]]]
            wrong += [flipped(good, 3), flipped(good, 4)]
            for changed in wrong:
                with self.assertRaises(client.ClientError):
                    client.unseal(recipient, *changed)
            with self.assertRaises(client.ClientError):
                client.unseal(other, *good)

    def test_a_suite_for_another_kind_of_key_is_not_taken(self):
        for vector in self.vectors:
            recipient, data = load(vector)
            other = client.X963 if vector["suite"] == client.RSA_WRAP else client.RSA_WRAP
            with self.assertRaises(client.ClientError):
                client.unseal(recipient, other, *arguments(vector, data)[1:])

    def test_only_zeros_of_one_block_are_trimmed(self):
        self.assertEqual(client.trim_der(bytes([0x30, 2, 5, 0])), bytes([0x30, 2, 5, 0]))
        self.assertEqual(client.trim_der(bytes([0x30, 2, 5, 0, 0, 0])), bytes([0x30, 2, 5, 0]))
        self.assertEqual(len(client.trim_der(bytes([0x30, 0x81, 200]) + bytes(207))), 203)
        for bad in ([0x30, 2, 5, 0, 1], [0x30, 2, 5, 0] + [0] * 8, [0x30, 9, 5, 0], [0x31, 2, 5, 0], []):
            with self.assertRaises(client.ClientError):
                client.trim_der(bytes(bad))


class Files(unittest.TestCase):
    def test_the_recipient_key_is_stored_for_its_owner_only_and_found_again(self):
        with tempfile.TemporaryDirectory() as directory:
            for suite in (None, client.RSA_WRAP):
                first = client.Claim(Path(directory) / "out", suite)
                self.assertEqual(stat.S_IMODE(first.key_file.stat().st_mode), 0o600)
                again = client.Claim(Path(directory) / "out")
                self.assertEqual((again.public, again.state), (first.public, first.state))
                self.assertEqual(again.suites, [suite] if suite else client.SUITES)
                with self.assertRaises(client.ClientError):
                    client.Claim(Path(directory) / "out", client.X963 if suite else client.RSA_WRAP)
                again.end()
                self.assertEqual(list((Path(directory) / "out").iterdir()), [])


class Confirmations(unittest.TestCase):
    def test_the_message_is_the_documented_one(self):
        message = client.confirm_message("018f3a52-6b1c-7c3e-9d2a-0123456789ab", b"certificate", b"point")
        label = b"keybroker-confirm-v1"
        self.assertEqual(message[: len(label) + 4], label + b"\x00\x00\x00\x24")
        self.assertEqual(len(message), len(label) + 4 + 36 + 4 + 32 + 4 + 32)
        self.assertEqual(message[-32:], client.sha256(b"point"))

    def test_each_curve_signs_with_its_hash(self):
        for curve, digest in ((ec.SECP256R1(), hashes.SHA256()), (ec.SECP384R1(), hashes.SHA384())):
            key = ec.generate_private_key(curve)
            key.public_key().verify(client.sign(key, b"message"), b"message", ec.ECDSA(digest))


class Protos(unittest.TestCase):
    def test_the_service_is_compiled_from_the_repository(self):
        messages, stub = client.load_proto(client.PROTO)
        self.assertEqual(messages.ClaimRequest(suites=client.SUITES).suites, client.SUITES)
        self.assertEqual(stub.__name__, "CredentialServiceStub")


if __name__ == "__main__":
    unittest.main()
