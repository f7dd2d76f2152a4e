#!/usr/bin/env bash
# Server CPU per request of etagd beside nginx and lighttpd, in turns, in one run.
#
#   benches/peers.sh [ROUNDS [SECONDS [CONNECTIONS]]]
#
# Each server has one worker pinned to core 0; wrk runs on core 1. What is printed is the CPU time
# that the server's processes used (user and system, from /proc), divided by the requests that wrk
# counted: the machine's load moves it far less than requests per second. Needs wrk, nginx and
# lighttpd; a server that is missing is left out. All traffic is on 127.0.0.1.
set -euo pipefail

rounds=${1:-3} seconds=${2:-4} connections=${3:-64}
top=$(cd "$(dirname "$0")/.." && pwd)
etagd=${ETAGD:-$top/target/release/etagd}
work=$(mktemp -d)
declare -A pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT

mkdir -p "$work/site" "$work/tmp"
head -c 4096 /dev/urandom > "$work/site/4k.bin"
head -c 65536 /dev/urandom > "$work/site/64k.bin"
head -c 1048576 /dev/urandom > "$work/site/1m.bin"
chmod -R a+rX "$work"

cat > "$work/nginx.conf" <<NGINX
daemon off; worker_processes 1; pid $work/nginx.pid; error_log /dev/null;
events { worker_connections 4096; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
  open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;
  client_body_temp_path $work/tmp/b; proxy_temp_path $work/tmp/p; fastcgi_temp_path $work/tmp/f;
  uwsgi_temp_path $work/tmp/u; scgi_temp_path $work/tmp/s;
  default_type application/octet-stream;
  server { listen 127.0.0.1:18081; root $work/site; }
}
NGINX
cat > "$work/lighttpd.conf" <<LIGHTTPD
server.document-root = "$work/site"
server.bind = "127.0.0.1"
server.port = 18082
server.max-keep-alive-requests = 1000000000
server.max-connections = 4096
server.max-fds = 8192
LIGHTTPD

start() { # NAME COMMAND...
  local name=$1; shift
  taskset -c 0 "$@" > "$work/$name.log" 2>&1 &
  pids[$name]=$!
}
declare -A port=()
start etagd "$etagd" serve "$work/site" --listen 127.0.0.1:18080 --workers 1 && port[etagd]=18080
if command -v nginx > /dev/null; then
  start nginx nginx -p "$work" -c "$work/nginx.conf" && port[nginx]=18081
fi
if command -v lighttpd > /dev/null; then
  start lighttpd lighttpd -D -f "$work/lighttpd.conf" && port[lighttpd]=18082
fi
for name in "${!port[@]}"; do
  for _ in $(seq 100); do
    curl -sf -o /dev/null "http://127.0.0.1:${port[$name]}/4k.bin" && break
    sleep 0.05
  done
done

cpu() { # ticks of a process and its children that live
  local pid total=0 fields
  for pid in "$1" $(pgrep -P "$1" || true); do
    fields=$(sed 's/.*) //' "/proc/$pid/stat")
    read -r _ _ _ _ _ _ _ _ _ _ _ user system _ <<< "$fields"
    total=$((total + user + system))
  done
  echo "$total"
}
tick=$(getconf CLK_TCK)

measure() { # NAME CASE URL [HEADER]
  local name=$1 case=$2 url=$3 before after out requests
  local headers=()
  [ -n "${4:-}" ] && headers=(-H "$4")
  before=$(cpu "${pids[$name]}")
  out=$(taskset -c 1 wrk -t1 -c"$connections" -d"${seconds}s" "${headers[@]}" "$url")
  after=$(cpu "${pids[$name]}")
  requests=$(awk '/requests in/ {print $1}' <<< "$out")
  awk -v n="$name" -v c="$case" -v r="$requests" -v t=$((after - before)) -v k="$tick" -v s="$seconds" \
    'BEGIN {printf "%-8s %-9s %8.3f us CPU/request %9.0f requests/s\n", c, n, t/k*1e6/r, r/s}'
  if grep -q 'Non-2xx' <<< "$out" && [ "$case" != 304 ]; then echo "  errors: $out"; fi
}

for round in $(seq "$rounds"); do
  for name in $(printf '%s\n' "${!port[@]}" | sort); do
    base=http://127.0.0.1:${port[$name]}
    tag=$(curl -sI "$base/4k.bin" | tr -d '\r' | awk 'tolower($1) == "etag:" {print $2}')
    measure "$name" 304 "$base/4k.bin" "If-None-Match: $tag"
    measure "$name" 4KiB "$base/4k.bin"
    measure "$name" 64KiB "$base/64k.bin"
    measure "$name" 1MiB "$base/1m.bin"
  done
done | sort -k1,1 -k2,2 -k3,3n
