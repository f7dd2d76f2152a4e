#!/usr/bin/env bash
# How long a warm start takes with --compress beside one without, in turns, and the ratio of their
# medians: from the start of the process until it listens.
#
#   benches/start.sh [DIR [ROUNDS]]      the documentation of Rust, 5 rounds
#   ETAGD=./etagd benches/start.sh       another binary
#
# Warm: all files are in the page cache, and --cache has what an earlier start has made. Each file is
# hashed; --state would save that to both.
set -euo pipefail

site=${1:-$(rustc --print sysroot)/share/doc/rust/html} rounds=${2:-5}
top=$(cd "$(dirname "$0")/.." && pwd)
etagd=${ETAGD:-$top/target/release/etagd}
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2> /dev/null || true; wait; rm -rf "$work"' EXIT

# Prints the milliseconds until it listens.
start() {
    local begun ended line
    begun=${EPOCHREALTIME/./}
    mkfifo "$work/log"
    "$etagd" "$site" --listen 127.0.0.1:0 "$@" 2> "$work/log" &
    server=$!
    while read -r line; do
        case $line in
        *"listening on "*) break ;;
        *error*) echo "$line" >&2 ;;
        esac
    done < <(tee -a "$work/all" < "$work/log")
    ended=${EPOCHREALTIME/./}
    kill "$server"
    wait "$server" || true
    server=
    rm "$work/log"
    echo $(((ended - begun) / 1000))
}

median() { sort -n | sed -n "$(((rounds + 1) / 2))p"; }

compress=(--compress --cache "$work/cache" --cache-size 4GiB)
uptime
echo "$(find "$site" -type f | wc -l) files, $(du -sh "$site" | cut -f1), $(nproc) cores"
echo "first start with --compress, which makes everything: $(start "${compress[@]}") ms"
start > /dev/null
for _ in $(seq "$rounds"); do
    start >> "$work/plain"
    start "${compress[@]}" >> "$work/compress"
done
plain=$(median < "$work/plain") made=$(median < "$work/compress")
echo "warm start: $plain ms without, $made ms with --compress;" \
    "ratio $(awk -v a="$made" -v b="$plain" 'BEGIN { printf "%.2f", a / b }')"
