"""Makes envelope.json with the `cryptography` package: an implementation that shares no code with ours."""

import json
import struct
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding


def private(number):
    return ec.derive_private_key(number, ec.SECP256R1())


def point(key):
    form = serialization.PublicFormat.UncompressedPoint
    return key.public_key().public_bytes(serialization.Encoding.X962, form)


def fields(label, *values):
    return label + b"".join(struct.pack(">I", len(value)) + value for value in values)


def cbc(secret, context):
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(bytes(16))).encryptor()
    return encryptor.update(context) + encryptor.finalize()


def x963(secret, context):
    return X963KDF(algorithm=hashes.SHA256(), length=32, sharedinfo=context).derive(secret)


recipient, hsm = private(0x1111 << 200 | 1), private(0x2222 << 200 | 2)
credential_key = private(0x3333 << 200 | 3)
dek = bytes(range(32))
pkcs8 = credential_key.private_bytes(
    serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
spki = credential_key.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
binding = {
    "tenant": "operator-a",
    "request": "018f3a52-6b1c-7c3e-9d2a-0123456789ab",
    "credential": "018f3a52-6b1d-7000-8000-ba9876543210",
    "certificate_sha256": sha256(b"the certificate's DER").hexdigest(),
}
vectors = []
for suite, derive in [("ECDH_P256_X963SHA256_KWP", x963), ("ECDH_P256_CBCENC_KWP_V1", cbc)]:
    context = sha256(
        fields(
            b"keybroker-envelope-v1",
            suite.encode(),
            binding["tenant"].encode(),
            binding["request"].encode(),
            binding["credential"].encode(),
            bytes.fromhex(binding["certificate_sha256"]),
            point(recipient),
            point(hsm),
        )
    ).digest()
    wrapping_key = derive(recipient.exchange(ec.ECDH(), hsm.public_key()), context)
    # SoftHSM fills the PKCS#8 with zeros to a multiple of eight before it wraps.
    padded = pkcs8 + bytes(-len(pkcs8) % 8)
    vectors.append(
        {
            "suite": suite,
            **binding,
            "recipient_private_key": f"{recipient.private_numbers().private_value:064x}",
            "recipient_point": point(recipient).hex(),
            "hsm_point": point(hsm).hex(),
            "context": context.hex(),
            "wrapping_key": wrapping_key.hex(),
            "data_key": dek.hex(),
            "wrapped_dek": aes_key_wrap_with_padding(wrapping_key, dek).hex(),
            "wrapped_key": aes_key_wrap_with_padding(dek, padded).hex(),
            "pkcs8": pkcs8.hex(),
            "subject_public_key_info": spki.hex(),
        }
    )
Path(__file__).with_name("envelope.json").write_text(json.dumps(vectors, indent=2) + "\n")
