#!/usr/bin/env bash
# The 99th percentile of requests while a batch of changes is published, with --compress and without, in
# turns, and the ratio of their medians.
#
#   benches/batch.sh [ROUNDS [MIB [SECONDS]]]     5 rounds, 32 MiB of text, 6 seconds of requests
#   ETAGD=./etagd RATE=1000 benches/batch.sh      another binary, other requests per second
#
# Requests come at a fixed rate, over 20 connections, for small pages that are in memory and do not
# change; they take no coding, so that both servers send the same bytes. The batch comes by one rename,
# half a second after the first request, and is long enough that compressing it takes most of the time.
#
# Needs h2load (Debian: nghttp2-client). All traffic is on 127.0.0.1.
set -euo pipefail

rounds=${1:-5} mib=${2:-32} seconds=${3:-6}
rate=${RATE:-1000}
top=$(cd "$(dirname "$0")/.." && pwd)
etagd=${ETAGD:-$top/target/release/etagd}
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2> /dev/null || true; wait; rm -rf "$work"' EXIT
command -v h2load > /dev/null || { echo "h2load is missing" >&2; exit 1; }
clients=20

mkdir -p "$work/pages"
for number in $(seq 100); do
    printf "<p>page $number, %s\n" {1..200} > "$work/pages/$number.html"
    echo "/$number.html" >> "$work/paths"
done
# Text that compresses to a third or so: words of random letters. Files of 1 MiB.
mkdir -p "$work/batch"
# Two bytes are five characters.
head -c $(((mib << 20) * 2 / 5)) /dev/urandom | od -An -v -tx2 -w32 > "$work/text"
split -b 1M -d -a 4 --additional-suffix=.txt "$work/text" "$work/batch/"

# Prints the 99th percentile in microseconds, and how long the batch took to be published.
round() {
    rm -rf "$work/site"
    cp -r "$work/pages" "$work/site"
    "$etagd" "$work/site" --listen 127.0.0.1:0 "$@" 2> "$work/log" &
    server=$!
    until grep -q 'listening on ' "$work/log"; do sleep 0.02; done
    local address
    address=$(sed -n 's/.*listening on //p' "$work/log")
    cp -r "$work/batch" "$work/coming"
    rm -f "$work/requests"
    h2load --h1 -t 1 -c "$clients" -D "$seconds" --rps $((rate / clients)) --log-file "$work/requests" \
        -B "$address" -i "$work/paths" > "$work/h2load" 2>&1 &
    local load=$! begun published=-
    sleep 0.5
    begun=$(date +%s%N)
    mv "$work/coming" "$work/site/batch"
    while kill -0 "$load" 2> /dev/null; do
        if [ "$published" = - ] && grep -q ' published: ' "$work/log"; then
            published=$((($(date +%s%N) - begun) / 1000000))
        fi
        sleep 0.05
    done
    wait "$load"
    kill "$server"
    wait "$server" || true
    server=
    # Those that began when the batch had come.
    local from=$((begun / 1000))
    awk -v from="$from" '$1 >= from && $2 == 200 { print $3 }' "$work/requests" |
        sort -n > "$work/times"
    local count
    count=$(wc -l < "$work/times")
    echo "$(sed -n "$(((count * 99 + 99) / 100))p" "$work/times") $count $published"
}

median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }

uptime
printf '%-12s %10s %10s %14s\n' "" "p99 (us)" requests "published (ms)"
for _ in $(seq "$rounds"); do
    for flags in "" --compress; do
        # shellcheck disable=SC2086
        read -r p99 count published < <(round $flags)
        printf '%-12s %10s %10s %14s\n' "${flags:-plain}" "$p99" "$count" "$published"
        echo "$p99" >> "$work/p99${flags:-plain}"
    done
done
plain=$(median < "$work/p99plain") compress=$(median < "$work/p99--compress")
echo "p99 while a batch of $mib MiB comes: $plain us without, $compress us with --compress;" \
    "ratio $(awk -v a="$compress" -v b="$plain" 'BEGIN { printf "%.2f", a / b }')"
