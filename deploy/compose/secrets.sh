#!/bin/sh
# Makes the files that compose.yaml mounts as secrets. Those that are there stay as they are, so it may run again.
#
# The folder is its owner's alone; the files in it can be read by everybody who sees them, because a container mounts a
# file with the mode that it has here.
set -eu

folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/secrets
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"

keep() { # write standard input to a file that is not there
    if [ -s "$1" ]; then cat >/dev/null; else cat >"$1"; fi
    chmod 444 "$1"
}
password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n' | keep "$1"; }

for name in service_token gateway_sealing_key postgres_password valkey_password nats_password grafana_password; do
    password "$name"
done
head -c 32 /dev/urandom | base64 | tr '+/' '-_' | keep auth_master_key
for role in auth auth_owner config config_owner codegen codegen_owner ingest ingest_owner; do
    password "${role}_password"
    echo "postgresql://$role:$(cat "${role}_password")@postgres:5432/pulsegate" | keep "${role}_dsn"
done
echo "redis://:$(cat valkey_password)@valkey:6379/0" | keep redis_url
echo "nats://pulsegate:$(cat nats_password)@nats:4222" | keep nats_url
# Nobody listens there: put the addresses of your webhooks in their place.
for name in pager_url morning_url; do
    echo "http://localhost:9" | keep "$name"
done

keep valkey.conf <<END
requirepass $(cat valkey_password)
dir /data
save ""
appendonly yes
maxmemory 256mb
maxmemory-policy volatile-ttl
END
# `sync_interval`: a record is on disk before it is acknowledged.
keep nats.conf <<END
port: 4222
jetstream { store_dir: /data, sync_interval: always }
max_payload: 8MB
authorization { user: pulsegate, password: "$(cat nats_password)" }
http: 8222
END
