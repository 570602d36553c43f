#!/bin/sh
# Makes target/python once: a virtual environment with what the tests check us with.
#   pkilint              linters for certificates and CRLs (RFC 5280)
#   grpcio, grpcio-tools the Python client of docs/
#   cryptography         the Python client's cryptography
#   kubernetes-validate  the schemas of Kubernetes' API, with PyYAML
#   cryptography-vectors NIST's path validation suite (PKITS), nothing but data
# Needs python3 with venv (Debian: python3-venv) and a package index for the first run.
set -eu
cd "$(dirname "$0")/.."
tools=target/python
if [ -x "$tools/bin/lint_crl" ] && "$tools/bin/python" -c 'import grpc, grpc_tools, cryptography, cryptography_vectors, kubernetes_validate, yaml' 2>/dev/null; then
    echo "$tools is ready"
    exit 0
fi
python3 -m venv "$tools" || {
    echo "python3 -m venv failed: install python3-venv (Debian) and run 'make tools' again" >&2
    exit 1
}
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check \
    pkilint==0.13.3 grpcio==1.85.1 grpcio-tools==1.85.1 cryptography==50.0.2 \
    cryptography-vectors==50.0.2 kubernetes-validate==1.37.0
echo "$tools is ready"
