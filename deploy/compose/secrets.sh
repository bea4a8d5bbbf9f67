#!/bin/sh
# Makes the secrets of compose.yaml, where they are not there yet. Containers of other users read them, so the folder
# is what keeps them.
set -eu
cd "$(dirname "$0")"
mkdir -p -m 700 secrets
for name in drift-monitor-token grafana-password; do
    [ -s "secrets/$name" ] && continue
    head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"secrets/$name"
    chmod 644 "secrets/$name"
    echo "deploy/compose/secrets/$name is made"
done
