#!/bin/sh
# Made first-schema.sqlite.sql and first-schema.postgres.sql, with the first keybroker that had both stores:
#   make_first_schema.sh KEYBROKER sqlite|postgres [URL] >first-schema.STORE.sql
# URL is that of an empty PostgreSQL database. They are never made again: what they are for is that they stay. Needs
# SoftHSM2, and sqlite3 or pg_dump.
set -eu
keybroker=$1 store=$2
url=${3:-sqlite:keybroker.db}
directory=$(mktemp -d)
cd "$directory"
cat >keybroker.toml <<END
[hsm]
module = "/usr/lib/softhsm/libsofthsm2.so"
token = "keybroker"
pin_file = "pin"
environment = { SOFTHSM2_CONF = "softhsm2.conf" }
[store]
url = "$url"
[audit]
mirror = "audit-mirror"
[listen]
http_url = "http://keybroker.example:7080"
[tenant.default]
destruction_horizon = "5s"
END
"$keybroker" init --softhsm . --grant amf-1 >&2
"$keybroker" serve >serve.log 2>&1 &
broker=$!
sleep 4
export KEYBROKER_PROFILE=clients/nfvo/profile.toml
"$keybroker" pool create amf-transport --vnf-instance amf-1 --vdu amf-worker --target 2 >&2
for n in 1 2 3 4; do
    "$keybroker" vnfci register "amf-$n" --vnf-instance amf-1 --vdu amf-worker --slot client=amf-transport --token >&2
done
for n in 1 2 3; do
    "$keybroker" claim --server 127.0.0.1:7443 --trust-anchor root.pem --token-file "tokens/amf-$n.token" --out "amf-$n" >&2
done
"$keybroker" renew --server 127.0.0.1:7444 --out amf-2 >&2
"$keybroker" release --server 127.0.0.1:7444 --out amf-1 >&2
"$keybroker" vnfci terminate amf-3 >&2
# Until what was given back is shredded and has its receipts.
sleep 14
kill $broker
wait $broker
if [ "$store" = postgres ]; then
    pg_dump --no-owner --no-acl --inserts --rows-per-insert=100 "$url" | sed '/^\\restrict/d; /^\\unrestrict/d'
else
    sqlite3 keybroker.db .dump
fi | sed "s#$directory/#/var/lib/keybroker/#"
rm -rf "$directory"
