#!/bin/sh
# Unpacks the Prometheus and Alertmanager of newer Debian suites beside the system's own, for the tests of the alerts.
#
#     fetch_servers.sh [FOLDER [SUITE...]]
#
# FOLDER/SUITE/usr/bin gets prometheus, promtool, amtool and prometheus-alertmanager. FOLDER is by default
# $DRIFT_MONITOR_SERVERS, or else ~/.cache/drift-monitor/servers; the suites are trixie (Prometheus 2.53) and sid
# (3.x). Nothing is installed: each suite has an apt root of its own, with the mirror and the keys of the machine's own
# sources, and the system's apt is not touched. A suite that cannot be had is said and left out.
set -eu

folder=${1:-${DRIFT_MONITOR_SERVERS:-$HOME/.cache/drift-monitor/servers}}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- trixie sid

# The first mirror of Debian itself that this machine uses: "URI key-file", the key file may be missing.
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    sed -n 's/^URIs:[[:space:]]*//p; s/^deb \(\[[^]]*\] \)\{0,1\}//p' |
    tr ' ' '\n' | grep -E '/debian/?$' | head -n 1) || true
if [ -z "$mirror" ]; then
    echo "no mirror of Debian in /etc/apt: no newer servers" >&2
    exit 0
fi
keys=/usr/share/keyrings/debian-archive-keyring.gpg

fetch() { # SUITE
    target=$folder/$1
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    mkdir -p "$root/lists/partial" "$root/cache/archives/partial" "$root/parts" "$root/debs"
    : >"$root/status"
    echo "deb [signed-by=$keys] $mirror $1 main" >"$root/sources.list"
    set -- -o Dir::Etc::sourcelist="$root/sources.list" -o Dir::Etc::sourceparts="$root/parts" \
        -o Dir::State::lists="$root/lists" -o Dir::State::status="$root/status" -o Dir::Cache="$root/cache" \
        -o APT::Sandbox::User=root -o Acquire::Languages=none
    apt-get "$@" update -qq &&
        (cd "$root/debs" && apt-get "$@" download -qq prometheus promtool prometheus-alertmanager) || return 1
    rm -rf "$target.new"
    mkdir -p "$target.new"
    for deb in "$root"/debs/*.deb; do dpkg-deb -x "$deb" "$target.new"; done
    rm -rf "$target.new/etc" "$target.new/lib" "$target.new/var" "$target.new/usr/share" "$target.new/usr/lib"
    rm -rf "$target"
    mv "$target.new" "$target"
    "$target/usr/bin/prometheus" --version 2>&1 | head -n 1
    "$target/usr/bin/prometheus-alertmanager" --version 2>&1 | head -n 1
}

for suite; do
    [ -x "$folder/$suite/usr/bin/prometheus-alertmanager" ] && continue
    (fetch "$suite") || echo "the servers of Debian $suite cannot be had now: their tests will be skipped" >&2
done
