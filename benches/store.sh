#!/usr/bin/env bash
# What it costs to serve a site from a store rather than from a directory, as a table: the first start,
# the next one, and a 304. The store is the Ceph of tests/stores/ceph, on this machine.
#
#   benches/store.sh [DIR [ROUNDS]]     the Rust documentation of this toolchain, 3 rounds
#   ETAGD=./after benches/store.sh      another etagd than target/release/etagd
#   CASES=304 benches/store.sh          only the cases whose name matches this pattern
#
# "cold" begins with an empty --cache and ends when /readyz is 200; next to it stands what rclone takes to
# copy the same objects, in turns. "warm" is the next start with that cache, next to one from the directory
# with --state. A 304 is measured as in benches/peers.sh: CPU time of the server by requests of wrk.
# CPU is user and system time of the process; wall time depends on what else the machine does.
#
# Needs rclone and wrk.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
site=${1:-$(rustc --print sysroot)/share/doc/rust/html}
rounds=${2:-3}
cases=${CASES:-.}
etagd=${ETAGD:-$top/target/release/etagd}
work=$(mktemp -d)
pid=
finish() {
  [ -z "$pid" ] || kill "$pid" 2> /dev/null || true
  "$top/tests/stores/ceph" down "$work/ceph"
  wait
  rm -rf "$work"
}
trap finish EXIT

for tool in rclone wrk curl; do
  command -v "$tool" > /dev/null || { echo "$tool is missing" >&2; exit 1; }
done
endpoint=$("$top/tests/stores/ceph" up "$work/ceph")
# Whatever else the environment says is about another store.
unset "${!AWS_@}"
export AWS_ACCESS_KEY_ID=AKIAADMIN AWS_SECRET_ACCESS_KEY=secret-admin AWS_REGION=us-east-1
export AWS_ENDPOINT_URL=$endpoint AWS_ALLOW_HTTP=true
export RCLONE_CONFIG_STORE_TYPE=s3 RCLONE_CONFIG_STORE_PROVIDER=Ceph RCLONE_CONFIG_STORE_ENV_AUTH=true
export RCLONE_CONFIG_STORE_ENDPOINT=$endpoint RCLONE_CONFIG=$work/rclone.conf
touch "$RCLONE_CONFIG"
rclone mkdir store:bucket
url=s3://bucket/site
tick=$(getconf CLK_TCK)

now() { date +%s.%N; }
note() { # CASE WHO VALUE
  printf '%s\t%s\t%s\n' "$1" "$2" "$3" >> "$work/results"
}
cpu() { # seconds that a process has used
  local fields
  fields=$(sed 's/.*) //' "/proc/$1/stat")
  # shellcheck disable=SC2086
  set -- $fields
  awk -v a="${12}" -v b="${13}" -v tick="$tick" 'BEGIN {print (a + b) / tick}'
}
# Of a command that ends: its wall and CPU time.
timed() { # CASE WHO COMMAND...
  local case=$1 who=$2 line
  shift 2
  TIMEFORMAT='%R %U %S'
  line=$({ time "$@" > "$work/out" 2>&1; } 2>&1) || { cat "$work/out" >&2; return 1; }
  # shellcheck disable=SC2086
  set -- $line
  note "$case, s" "$who" "$1"
  note "$case, CPU s" "$who" "$(awk -v a="$2" -v b="$3" 'BEGIN {print a + b}')"
}
# Starts etagd, and waits until it is ready. Sets `pid`.
serve() { # FLAGS...
  "$etagd" serve "$@" --listen 127.0.0.1:18480 --admin 127.0.0.1:18481 > "$work/log" 2>&1 &
  pid=$!
  until curl -sf -o /dev/null http://127.0.0.1:18481/readyz; do
    kill -0 "$pid" 2> /dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.02
  done
}
stop() {
  kill "$pid"
  wait "$pid" 2> /dev/null || true
  pid=
}
# A start until it is ready.
start() { # CASE WHO FLAGS...
  local case=$1 who=$2 begin
  shift 2
  begin=$(now)
  serve "$@"
  note "$case, s" "$who" "$(awk -v a="$begin" -v b="$(now)" 'BEGIN {print b - a}')"
  note "$case, CPU s" "$who" "$(cpu "$pid")"
  note "$case, RSS MiB" "$who" "$(awk '/^VmRSS/ {print $2 / 1024}' "/proc/$pid/status")"
}
# Waits until the server has nothing left to do: it puts what is in its cache into memory, and so on.
settle() {
  local before=none
  until [ "$before" = "$(cpu "$pid")" ]; do
    before=$(cpu "$pid")
    sleep 0.5
  done
}
not_modified() { # WHO
  local who=$1 path tag before requests
  path=/$(cd "$site" && find . -name '*.html' -size -40k | sort | sed -n "1s,^..,,p")
  tag=$(curl -sIL "http://127.0.0.1:18480$path" | tr -d '\r' | awk 'tolower($1) == "etag:" {print $2}' | tail -1)
  [ -n "$tag" ] || { echo "no tag for $path" >&2; return 1; }
  settle
  before=$(cpu "$pid")
  requests=$(wrk -t1 -c64 -d4s -H "If-None-Match: $tag" "http://127.0.0.1:18480$path" | awk '/requests in/ {print $1}')
  note "304, us CPU" "$who" "$(awk -v a="$before" -v b="$(cpu "$pid")" -v n="$requests" 'BEGIN {print (b - a) * 1e6 / n}')"
}

timed "push of $(find "$site" -type f | wc -l) files" store "$etagd" push "$site" "$url"
timed "push of what is there" store "$etagd" push "$site" "$url"
# The directory's own first start, whose state the next ones read.
start "first start" directory "$site" --state "$work/state"
stop
for _ in $(seq "$rounds"); do
  if [[ cold =~ $cases ]]; then
    rm -rf "$work/cache" "$work/copy"
    timed cold rclone rclone copy --transfers 64 --checkers 64 store:bucket/site "$work/copy"
    start cold store "$url" --cache "$work/cache" --cache-size 4GiB
    stop
  fi
  if [[ warm =~ $cases ]]; then
    start warm store "$url" --cache "$work/cache" --cache-size 4GiB
    [[ 304 =~ $cases ]] && not_modified store
    stop
    start warm directory "$site" --state "$work/state"
    [[ 304 =~ $cases ]] && not_modified directory
    stop
  fi
done

# The median of the rounds, and the ratio of the store to what it is compared with.
sort -t "$(printf '\t')" -k1,1 -k2,2 -k3,3g "$work/results" | awk -F'\t' '
  {key = $1 FS $2; values[key, ++count[key]] = $3; cases[$1]; }
  function median(key) {return count[key] ? values[key, int((count[key] + 1) / 2)] : ""}
  function cell(value) {return value == "" ? "-" : sprintf("%.2f", value)}
  END {
    printf "%-28s %10s %10s %10s %8s\n", "median", "store", "directory", "rclone", "ratio"
    for (case_ in cases) {
      own = median(case_ FS "store"); dir = median(case_ FS "directory"); copy = median(case_ FS "rclone")
      other = dir == "" ? copy : dir
      ratio = own == "" || other == "" || other == 0 ? "" : own / other
      printf "%-28s %10s %10s %10s %8s\n", case_, cell(own), cell(dir), cell(copy), cell(ratio) | "sort"
    }
  }'
