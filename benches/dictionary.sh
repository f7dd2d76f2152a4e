#!/usr/bin/env bash
# What deltas save between two releases: bytes of each file that has one, and the CPU seconds that they
# take. Usage: benches/dictionary.sh OLD NEW [ETAGD]
#
# NEW is copied; neither directory is changed. A file counts with its shortest coding without a
# dictionary (br), and with its longest delta, if a client may have one of several older files.
set -euo pipefail
old=$(realpath "$1") new=$(realpath "$2")
etagd=${3:-$(dirname "$0")/../target/release/etagd}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$new" "$work/new"

# CPU seconds of a command, user and system.
cpu() {
    local TIMEFORMAT='%U %S'
    { time "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }; } 2>&1 |
        awk '{ printf "%.1f", $1 + $2 }'
}
plain_seconds=$(cpu "$etagd" compress "$work/new")
delta_seconds=$(cpu "$etagd" compress "$work/new" --against "$old")

size() { stat -c %s "$1"; }
longest() {
    local most=0 file
    for file in "$@"; do
        [ -e "$file" ] && (($(size "$file") > most)) && most=$(size "$file")
    done
    echo "$most"
}
format='%-48s %12s %12s %12s %12s\n'
printf "$format" file raw br dcz dcb
raw_sum=0 br_sum=0 dcz_sum=0 dcb_sum=0
while IFS= read -r file; do
    dcz=$(longest "$file".????????????????.dcz) dcb=$(longest "$file".????????????????.dcb)
    ((dcz + dcb > 0)) || continue
    raw=$(size "$file") br=$(size "$file")
    [ -e "$file.br" ] && br=$(size "$file.br")
    # What has only one of the two is sent as that.
    ((dcz > 0)) || dcz=$dcb
    ((dcb > 0)) || dcb=$dcz
    printf "$format" "${file#"$work"/new/}" "$raw" "$br" "$dcz" "$dcb"
    ((raw_sum += raw, br_sum += br, dcz_sum += dcz, dcb_sum += dcb)) || true
done < <(find "$work/new" -type f ! -path '*/.etagd/*' ! -name '*.br' ! -name '*.zst' ! -name '*.gz' \
    ! -name '*.dcb' ! -name '*.dcz' | sort)
printf "$format" "sum" "$raw_sum" "$br_sum" "$dcz_sum" "$dcb_sum"
echo "CPU seconds: $plain_seconds for br, zstd and gzip of all files; $delta_seconds for dcb and dcz"
