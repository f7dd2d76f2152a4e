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
# Three things that would be measured in place of the server are kept out: the client has the last core to
# itself, for its own wake-ups would wait for the threads that compress; its connections begin 7 ms after
# each other, for otherwise all of them ask in the same 20 us, and a percentile is that of a few bursts; and
# nothing else runs while requests do.
#
# Needs h2load (Debian: nghttp2-client) and two cores. All traffic is on 127.0.0.1.
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
last=$(($(nproc) - 1))
[ "$last" -gt 0 ] || { echo "client and server need a core each" >&2; exit 1; }

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

# Prints the 99th percentile in microseconds, of how many requests, and after how many milliseconds the
# batch was published.
round() {
    rm -rf "$work/site"
    cp -r "$work/pages" "$work/site"
    taskset -c "0-$((last - 1))" "$etagd" "$work/site" --listen 127.0.0.1:0 "$@" 2> "$work/log" &
    server=$!
    until grep -q 'listening on ' "$work/log"; do sleep 0.02; done
    local address
    address=$(sed -n 's/.*listening on //p' "$work/log")
    cp -r "$work/batch" "$work/coming"
    rm -f "$work/requests"
    taskset -c "$last" h2load --h1 -t 1 -c "$clients" -r 1 --rate-period 7ms --rps $((rate / clients)) \
        -n $((rate * seconds)) --log-file "$work/requests" -B "$address" -i "$work/paths" \
        > "$work/h2load" 2>&1 &
    local load=$! begun published=- logged
    sleep 0.5
    begun=$(date +%s%N)
    mv "$work/coming" "$work/site/batch"
    wait "$load"
    kill "$server"
    wait "$server" || true
    server=
    logged=$(sed -n 's/ published: .*//p' "$work/log")
    [ -z "$logged" ] || published=$((($(date -d "$logged" +%s%N) - begun) / 1000000))
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
