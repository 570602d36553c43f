"""Makes envelope.json with the `cryptography` package: an implementation that shares no code with ours."""

import json
import struct
from hashlib import sha1, sha256
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding

# Primes of the RSA recipient's key, so that every run makes the same file.
P = int(
    "ee96a2aab2e0970e319a1ed2f8101efc1fea29511319f0a2b4e96103dac7b3664e36d314ead07a3ec31917279725919d"
    "aa3306793d32cf48cabb8c1116984ed1d894f225f972a39ed88ee2bc8e020b8dc3a82aef629fc925b92cf9043ead183a"
    "49f461cce6c0f67476a9dee6a2396ce18719f4027ec743f40da9e6efeddfc019",
    16,
)
Q = int(
    "e88b74dc20b7414b8169e81d529dc4623b4f8841e7ea88a4442a256bf19eda06cc52163486beb36d241461e80243d32e"
    "f3c5fb0d427675d7537a691c2dada9be061e39f2c0f73563241c71b89af272ddf28a35ff06baf78af415e7640bff719a"
    "71ef0cc98a6a6703f278335d566456db890c1b453252303d40d25bbfd745e4ef",
    16,
)


def private(number):
    return ec.derive_private_key(number, ec.SECP256R1())


def rsa_private(p, q, e=65537):
    d = pow(e, -1, (p - 1) * (q - 1))
    parts = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, *parts, rsa.RSAPublicNumbers(e, p * q)).private_key()


def point(key):
    form = serialization.PublicFormat.UncompressedPoint
    return key.public_key().public_bytes(serialization.Encoding.X962, form)


def public_der(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def private_der(key):
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())


def fields(label, *values):
    return label + b"".join(struct.pack(">I", len(value)) + value for value in values)


def cbc(secret, context):
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(bytes(16))).encryptor()
    return encryptor.update(context) + encryptor.finalize()


def x963(secret, context):
    return X963KDF(algorithm=hashes.SHA256(), length=32, sharedinfo=context).derive(secret)


def oaep(key, digest, seed, message):
    """RSAES-OAEP (RFC 8017 7.1.1) with a seed that is given: the package takes a random one."""

    def mgf1(data, length):
        blocks = [digest(data + struct.pack(">I", n)).digest() for n in range(-(-length // len(seed)))]
        return b"".join(blocks)[:length]

    def xor(left, right):
        return bytes(a ^ b for a, b in zip(left, right, strict=True))

    numbers = key.public_key().public_numbers()
    size = key.key_size // 8
    block = digest().digest() + bytes(size - len(message) - 2 * len(seed) - 2) + b"\1" + message
    masked = xor(block, mgf1(seed, len(block)))
    encoded = b"\0" + xor(seed, mgf1(masked, len(seed))) + masked
    return pow(int.from_bytes(encoded, "big"), numbers.e, numbers.n).to_bytes(size, "big")


recipient, hsm = private(0x1111 << 200 | 1), private(0x2222 << 200 | 2)
rsa_recipient = rsa_private(P, Q)
credential_key = private(0x3333 << 200 | 3)
dek = bytes(range(32))
pkcs8 = private_der(credential_key)
# SoftHSM fills the PKCS#8 with zeros to a multiple of eight before it wraps.
padded = pkcs8 + bytes(-len(pkcs8) % 8)
binding = {
    "tenant": "operator-a",
    "request": "018f3a52-6b1c-7c3e-9d2a-0123456789ab",
    "credential": "018f3a52-6b1d-7000-8000-ba9876543210",
    "certificate_sha256": sha256(b"the certificate's DER").hexdigest(),
}
content = {
    "wrapped_key": aes_key_wrap_with_padding(dek, padded).hex(),
    "pkcs8": pkcs8.hex(),
    "subject_public_key_info": public_der(credential_key).hex(),
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
            **content,
        }
    )
for name, digest, algorithm in [("SHA-256", sha256, hashes.SHA256()), ("SHA-1", sha1, hashes.SHA1())]:
    wrapped_dek = oaep(rsa_recipient, digest, digest(b"seed").digest(), dek)
    # The package's own OAEP reads it.
    parameters = padding.OAEP(padding.MGF1(algorithm), algorithm, None)
    assert rsa_recipient.decrypt(wrapped_dek, parameters) == dek
    vectors.append(
        {
            "suite": "RSA_AES_KEY_WRAP",
            "oaep_hash": name,
            **binding,
            "recipient_private_key": private_der(rsa_recipient).hex(),
            "recipient_public_key": public_der(rsa_recipient).hex(),
            "data_key": dek.hex(),
            "wrapped_dek": wrapped_dek.hex(),
            **content,
        }
    )
Path(__file__).with_name("envelope.json").write_text(json.dumps(vectors, indent=2) + "\n")
