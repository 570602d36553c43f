"""An enrolment server (RFC 7030) that shares no code with keybroker: Python's TLS and HTTP, certificates by `cryptography`.

It behaves as servers in use do, and as none should. How, is read anew at each request from DIR/behaviour.json, an object of
what differs from DEFAULT; the keys are explained there.

    est_server.py serve DIR [--ca KEY] [--tls-key KEY] [--tls-1.2] [--stranger-tls]
        makes DIR/root.pem (and DIR/web.pem, the root of its TLS certificate, if that is a stranger's), prints its port, serves
    est_server.py sign DIR REQUEST
        a TLS client certificate with its chain for a request, all PEM

KEY is p256, p384, rsa or ed25519.
"""

import argparse
import base64
import datetime
import email.utils
import http.server
import ipaddress
import json
import pathlib
import socketserver
import ssl
import sys
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DEFAULT = {
    # The body: "plain", "lines", "crlf" (base64), "pem", "der".
    "encoding": "plain",
    "content_type": "application/pkcs7-mime; smime-type=certs-only",
    "transfer_encoding_header": True,
    # "title", "lower" or "upper".
    "header_case": "title",
    # "length", "chunked", "close" (its end is the connection's, without close_notify), "cut-length", "cut-chunked", "cut-close",
    # "endless", "drip".
    "framing": "length",
    "http": "1.1",
    # The connection is closed after the answer, though nothing said so.
    "hang_up": False,
    # "der", "ber" (indefinite lengths), "empty-content", "content", "signed", "garbage".
    "cms": "der",
    "crl": False,
    # CA certificates by the names of their files; "garbage" is one that is none.
    "cacerts": ["sub", "root"],
    # Certificates of an enrolment's answer: "leaf", "other" (somebody else's), or a CA's.
    "answer": ["leaf"],
    # Who signs leaves.
    "issuer": "sub",
    # What differs from the request: "subject", "no-eku", "more-eku", "no-key-usage", "more-extensions", "san", "ca", "critical".
    "leaf": [],
    "days": 3,
    # A status with or without a body, or the body's DER as hex.
    "csrattrs": 204,
    # Answers before the first good one, for each operation: [status, {header: value}, body]. DATE+n in a value is a date.
    "first": {},
    # How often that is so; for enrolments, for each request.
    "times": 1,
    # To which URL everything is redirected that has no "?again": [status, location]; PATH in it is the path.
    "redirect": None,
}

KEYS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
DAY = datetime.timedelta(days=1)


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def name(common_name):
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Operator"),
        ]
    )


def digest(key):
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    is_p384 = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp384r1"
    return hashes.SHA384() if is_p384 else hashes.SHA256()


def key_usage(ca):
    fields = dict.fromkeys(
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only".split(),
        False,
    )
    fields.update({"key_cert_sign": True, "crl_sign": True} if ca else {"digital_signature": True})
    return x509.KeyUsage(**fields)


class Authority:
    """CA keys and certificates, kept in a directory so that `sign` finds those of `serve`."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)

    def make(self, kind):
        root = self.add_ca("root", "Operator root", KEYS[kind]())
        self.add_ca("sub", "Operator sub-CA", KEYS[kind](), root)
        stranger = self.add_ca("stranger", "Stranger root", KEYS[kind]())
        self.add_ca("stranger-sub", "Stranger sub-CA", KEYS[kind](), stranger)
        self.add_ca("expired", "Operator sub-CA of old", KEYS[kind](), root, begin=-40 * DAY, end=-10 * DAY)
        # A root's rollover (RFC 7030 4.1.3, RFC 4210 4.4): the same name, another key, each certified by the other.
        new_key = KEYS[kind]()
        new = self.add_ca("new-with-new", "Operator root", new_key)
        self.add_ca("new-with-old", "Operator root", new_key, root)
        self.add_ca("old-with-new", "Operator root", root[1], new)
        self.add_ca("new-sub", "Operator sub-CA of the new root", KEYS[kind](), new)

    def add_ca(self, file, common_name, key, issuer=None, begin=-DAY, end=30 * DAY):
        issuer_name = issuer[0].subject if issuer else name(common_name)
        issuer_key = issuer[1] if issuer else key
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common_name))
            .issuer_name(issuer_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() + begin)
            .not_valid_after(now() + end)
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(key_usage(ca=True), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
        )
        certificate = builder.sign(issuer_key, digest(issuer_key))
        pem = serialization.Encoding.PEM
        (self.directory / f"{file}.pem").write_bytes(certificate.public_bytes(pem))
        (self.directory / f"{file}.key").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return certificate, key

    def ca(self, file):
        key = serialization.load_pem_private_key((self.directory / f"{file}.key").read_bytes(), None)
        return self.certificate(file), key

    def certificate(self, file):
        return x509.load_pem_x509_certificate((self.directory / f"{file}.pem").read_bytes())

    def issue(self, file, subject, public_key, extensions, days):
        certificate, key = self.ca(file)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() - datetime.timedelta(minutes=5))
            .not_valid_after(now() + days * DAY)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(certificate.public_key()), False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        return builder.sign(key, digest(key))

    def crl(self):
        certificate, key = self.ca("sub")
        builder = x509.CertificateRevocationListBuilder().issuer_name(certificate.subject)
        builder = builder.last_update(now() - DAY).next_update(now() + DAY)
        return builder.sign(key, digest(key)).public_bytes(serialization.Encoding.DER)


def tlv(tag, *parts, indefinite=False):
    content = b"".join(parts)
    if indefinite:
        return bytes([tag, 0x80]) + content + b"\0\0"
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def cms(behaviour, certificates, crl):
    """A certs-only message (RFC 5652, RFC 5272 4.1) as the behaviour has it."""
    kind = behaviour["cms"]
    if kind == "garbage":
        return b"\x30\x82\x01\x00" + bytes(range(256))
    ber = {"indefinite": kind == "ber"}
    id_data = bytes.fromhex("06092a864886f70d010701")
    id_signed_data = bytes.fromhex("06092a864886f70d010702")
    content = {"empty-content": tlv(0xA0, b"\x04\x00"), "content": tlv(0xA0, b"\x04\x05hello")}.get(kind, b"")
    version = b"\x02\x01\x01"
    crls = [tlv(0xA1, crl, **ber)] if behaviour["crl"] else []
    signed = tlv(
        0x30, version, tlv(0x31), tlv(0x30, id_data, content, **ber), tlv(0xA0, *certificates, **ber), *crls, tlv(0x31), **ber
    )
    return tlv(0x30, id_signed_data, tlv(0xA0, signed, **ber), **ber)


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 60

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body):
        state = self.server.state
        changed = json.loads((state.authority.directory / "behaviour.json").read_text())
        assert set(changed) <= set(DEFAULT), changed
        self.behaviour = {**DEFAULT, **changed}
        prefix = "/.well-known/est/nfv/"
        path, _, query = self.path.partition("?")
        operation = path.removeprefix(prefix) if path.startswith(prefix) else ""
        redirect = self.behaviour["redirect"]
        if redirect and not query:
            status, location = redirect
            return self.send(status, {"Location": location.replace("PATH", path)}, b"")
        first = self.behaviour["first"].get(operation)
        key = (json.dumps(changed), operation, body)
        with state.lock:
            state.asked[key] = state.asked.get(key, 0) + 1
            early = state.asked[key] <= self.behaviour["times"]
        if first and early:
            status, headers, text = first
            headers = {field: dated(value) for field, value in headers.items()}
            return self.send(status, headers, text.encode())
        if operation == "cacerts":
            return self.send_certificates([self.der(file) for file in self.behaviour["cacerts"]])
        if operation == "csrattrs":
            wanted = self.behaviour["csrattrs"]
            if isinstance(wanted, int):
                return self.send(wanted, {}, b"")
            return self.send(200, {"Content-Type": "application/csrattrs"}, self.encoded(bytes.fromhex(wanted)))
        if operation in ("simpleenroll", "simplereenroll"):
            return self.enrol(body)
        self.send(404, {"Content-Type": "text/html"}, b"<html>no such operation</html>")

    def der(self, file):
        if file == "garbage":
            return tlv(0x30, b"\x04\x03abc")
        return self.server.state.authority.certificate(file).public_bytes(serialization.Encoding.DER)

    def enrol(self, body):
        authority = self.server.state.authority
        content_type = self.headers["Content-Type"].split(";")[0].strip()
        if content_type != "application/pkcs10" or not self.connection.getpeercert(True):
            return self.send(400, {"Content-Type": "text/plain"}, b"not by certificate, or no application/pkcs10")
        request = x509.load_der_x509_csr(base64.b64decode(body, validate=True))
        if not request.is_signature_valid:
            return self.send(400, {"Content-Type": "text/plain"}, b"no proof of possession")
        certificates = []
        for wanted in self.behaviour["answer"]:
            if wanted == "leaf":
                certificates.append(self.leaf(request).public_bytes(serialization.Encoding.DER))
            elif wanted == "other":
                other = authority.issue("sub", request.subject, KEYS["p256"]().public_key(), request.extensions, 3)
                certificates.append(other.public_bytes(serialization.Encoding.DER))
            else:
                certificates.append(self.der(wanted))
        self.send_certificates(certificates)

    def leaf(self, request):
        """What the server makes of a request."""
        changes = self.behaviour["leaf"]
        subject, extensions = request.subject, list(request.extensions)

        def without(kind):
            return [extension for extension in extensions if not isinstance(extension.value, kind)]

        def add(value, critical):
            extensions.append(x509.Extension(value.oid, critical, value))

        if "subject" in changes:
            subject = name("somebody else")
        if "no-key-usage" in changes:
            extensions = without(x509.KeyUsage)
        if "no-eku" in changes or "more-eku" in changes:
            extensions = without(x509.ExtendedKeyUsage)
        if "more-eku" in changes:
            add(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]), False)
        if "san" in changes:
            extensions = without(x509.SubjectAlternativeName)
            add(x509.SubjectAlternativeName([x509.DNSName("stranger.example")]), False)
        if "ca" in changes:
            add(x509.BasicConstraints(True, None), True)
        if "more-extensions" in changes:
            add(x509.SubjectKeyIdentifier.from_public_key(request.public_key()), False)
            add(x509.BasicConstraints(False, None), True)
            add(x509.CRLDistributionPoints([point("http://crl.operator.example/sub.crl")]), False)
            add(x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.3.6.1.4.1.32473.1"), None)]), False)
            add(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.311.21.7"), b"\x30\x00"), False)
        if "critical" in changes:
            add(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\x05\x00"), True)
        behaviour = self.behaviour
        authority = self.server.state.authority
        return authority.issue(behaviour["issuer"], subject, request.public_key(), extensions, behaviour["days"])

    def send_certificates(self, certificates):
        authority = self.server.state.authority
        if self.behaviour["cms"] == "signed":
            certificate, key = authority.ca("sub")
            message = pkcs7.PKCS7SignatureBuilder().set_data(b"signed").add_signer(certificate, key, hashes.SHA256())
            message = message.sign(serialization.Encoding.DER, [])
        else:
            message = cms(self.behaviour, certificates, authority.crl())
        headers = {"Content-Type": self.behaviour["content_type"]}
        if self.behaviour["transfer_encoding_header"]:
            headers["Content-Transfer-Encoding"] = "base64"
        self.send(200, headers, self.encoded(message))

    def encoded(self, der):
        encoding = self.behaviour["encoding"]
        text = base64.b64encode(der)
        if encoding == "der":
            return der
        if encoding == "plain":
            return text
        width, end = (76, b"\r\n") if encoding == "crlf" else (64, b"\n")
        lines = b"".join(text[at : at + width] + end for at in range(0, len(text), width))
        if encoding == "pem":
            return b"-----BEGIN PKCS7-----\n" + lines + b"-----END PKCS7-----\n"
        return lines

    def send(self, status, headers, body):
        """Writes an answer, its framing as the behaviour has it. What is no success is framed well."""
        behaviour = self.behaviour
        framing = behaviour["framing"] if status == 200 else "length"
        if status == 204:
            framing = "none"
        self.close_connection = behaviour["hang_up"] or behaviour["http"] == "1.0"
        headers = {"Date": email.utils.formatdate(usegmt=True), **headers}
        if framing in ("length", "cut-length"):
            headers["Content-Length"] = str(len(body) + (100 if framing == "cut-length" else 0))
        elif framing in ("chunked", "cut-chunked"):
            headers["Transfer-Encoding"] = "chunked"
            half = len(body) // 2
            end = b"" if framing == "cut-chunked" else b"0\r\n\r\n"
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part) + end
        elif framing == "cut-close":
            body = body[: len(body) // 4 * 3]
        if framing not in ("length", "chunked", "none"):
            self.close_connection = True
        if framing in ("close", "cut-close", "endless", "drip"):
            headers["Connection"] = "close"
        case = {"title": str, "lower": str.lower, "upper": str.upper}[behaviour["header_case"]]
        head = f"HTTP/{behaviour['http']} {status} {self.responses.get(status, ('',))[0]}\r\n"
        head += "".join(f"{case(field)}: {value}\r\n" for field, value in headers.items())
        self.wfile.write(head.encode() + b"\r\n")
        try:
            if framing == "endless":
                while True:
                    self.wfile.write(b"MIIB" * 4096)
            for at in range(0, len(body), 10) if framing == "drip" else ():
                self.wfile.write(body[at : at + 10])
                time.sleep(1)
            if framing != "drip":
                self.wfile.write(body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True


def point(url):
    return x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)


def dated(value):
    """DATE+n: an HTTP-date in so many seconds."""
    if not value.startswith("DATE"):
        return value
    return email.utils.formatdate(time.time() + int(value.removeprefix("DATE")), usegmt=True)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, state, context):
        super().__init__(("127.0.0.1", 0), Handler)
        self.state, self.context = state, context

    def process_request_thread(self, request, address):
        # The handshake in the connection's own thread.
        try:
            request.settimeout(60)
            request = self.context.wrap_socket(request, server_side=True)
        except OSError:
            return request.close()
        super().process_request_thread(request, address)

    def handle_error(self, request, address):
        pass


class State:
    def __init__(self, authority):
        self.authority, self.lock, self.asked = authority, threading.Lock(), {}


def serve(arguments):
    authority = Authority(arguments.directory)
    authority.make(arguments.ca)
    behaviour = authority.directory / "behaviour.json"
    behaviour.write_text("{}")
    key = KEYS[arguments.tls_key]()
    issuer = "stranger" if arguments.stranger_tls else "root"
    extensions = [
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    ]
    extensions = [x509.Extension(extension.oid, False, extension) for extension in extensions]
    certificate = authority.issue(issuer, name("est"), key.public_key(), extensions, 5)
    (authority.directory / "web.pem").write_bytes((authority.directory / f"{issuer}.pem").read_bytes())
    pem = serialization.Encoding.PEM
    chain = authority.directory / "tls.pem"
    chain.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.load_verify_locations(authority.directory / "root.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    if arguments.tls_12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = Server(State(authority), context)
    # It ends when whoever started it does.
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    print(server.server_address[1], flush=True)
    server.serve_forever()


def sign(arguments):
    authority = Authority(arguments.directory)
    request = x509.load_pem_x509_csr(pathlib.Path(arguments.request).read_bytes())
    certificate = authority.issue("sub", request.subject, request.public_key(), request.extensions, 5)
    for one in (certificate, authority.certificate("sub")):
        sys.stdout.write(one.public_bytes(serialization.Encoding.PEM).decode())


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    serving = commands.add_parser("serve")
    serving.set_defaults(run=serve)
    serving.add_argument("--ca", choices=KEYS, default="p256")
    serving.add_argument("--tls-key", choices=KEYS, default="p256")
    serving.add_argument("--tls-1.2", dest="tls_12", action="store_true")
    serving.add_argument("--stranger-tls", action="store_true")
    signing = commands.add_parser("sign")
    signing.set_defaults(run=sign)
    for command in (serving, signing):
        command.add_argument("directory")
    signing.add_argument("request")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
