#!/usr/bin/env bash
# Server CPU per request of etagd beside nginx, lighttpd and h2o, in turns, as a table.
#
#   benches/peers.sh [ROUNDS [SECONDS]]      3 rounds of 4 seconds for each server and case
#   CASES=304 benches/peers.sh               only the cases whose name matches this pattern
#   ETAGD=./after OTHER=./before ...         another etagd in turns with the first
#
# Its peers are what Debian's packages hold, so etagd is what its own packages hold:
# `cargo build --profile dist` first.
#
# Each server has one worker pinned to core 0; the client runs on core 1. What is counted is the CPU
# time that the server's processes used (user and system, from /proc), divided by the requests that
# the client counted: the machine's load moves it far less than requests per second. The table has
# the median of the rounds in microseconds, and etagd's ratio to the best of its peers.
#
# Needs wrk, and for TLS h2load (Debian: nghttp2-client) and openssl. A server or client that is
# missing is left out. All traffic is on 127.0.0.1.
set -euo pipefail

rounds=${1:-3} seconds=${2:-4}
cases=${CASES:-.}
top=$(cd "$(dirname "$0")/.." && pwd)
etagd=${ETAGD:-$top/target/dist/etagd}
other=${OTHER:-}
work=$(mktemp -d)
declare -A pids=() port=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done; wait; rm -rf "$work"' EXIT

has() { command -v "$1" > /dev/null; }
has wrk || { echo "wrk is missing" >&2; exit 1; }
[ -x "$etagd" ] || { echo "$etagd is missing: cargo build --profile dist" >&2; exit 1; }
# 2,048 connections, and what else a process has open.
ulimit -n 8192

mkdir -p "$work/site" "$work/tmp"
head -c 4096 /dev/urandom > "$work/site/4k.bin"
head -c 65536 /dev/urandom > "$work/site/64k.bin"
head -c 1048576 /dev/urandom > "$work/site/1m.bin"
head -c 8388608 /dev/urandom > "$work/site/8m.bin"
if has openssl; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2> /dev/null
  cat "$work/key.pem" "$work/cert.pem" > "$work/both.pem"
fi
chmod -R a+rX "$work"

nginx_conf() { # NAME LISTEN
  cat << NGINX
daemon off; worker_processes 1; pid $work/nginx.$1.pid; error_log /dev/null;
events { worker_connections 4096; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
  open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s;
  client_body_temp_path $work/tmp/b; proxy_temp_path $work/tmp/p; fastcgi_temp_path $work/tmp/f;
  uwsgi_temp_path $work/tmp/u; scgi_temp_path $work/tmp/s;
  default_type application/octet-stream;
  server {
    listen 127.0.0.1:$2; root $work/site;
    ssl_certificate $work/cert.pem; ssl_certificate_key $work/key.pem;
  }
}
NGINX
}
lighttpd_conf() { # PORT
  cat << LIGHTTPD
server.document-root = "$work/site"
server.bind = "127.0.0.1"
server.port = $1
server.max-keep-alive-requests = 1000000000
server.max-connections = 4096
server.max-fds = 8192
# It gives no entity tag to what has no type.
mimetype.assign = (".bin" => "application/octet-stream")
LIGHTTPD
}
h2o_conf() { # LISTEN
  cat << H2O
num-threads: 1
max-connections: 4096
error-log: /dev/null
listen: {host: 127.0.0.1, $1}
hosts: {default: {paths: {/: {file.dir: $work/site}}}}
H2O
  if [ "$(id -u)" = 0 ]; then echo "user: root"; fi
}

start() { # NAME PORT COMMAND...
  local name=$1 number=$2 _
  shift 2
  taskset -c 0 "$@" > "$work/$name.log" 2>&1 &
  pids[$name]=$!
  for _ in $(seq 100); do
    if curl -sfk -o /dev/null "http://127.0.0.1:$number/4k.bin" \
      || curl -sfk -o /dev/null "https://127.0.0.1:$number/4k.bin"; then
      port[$name]=$number
      return
    fi
    kill -0 "${pids[$name]}" 2> /dev/null || break
    sleep 0.05
  done
  echo "$name does not start, and is left out: $(head -1 "$work/$name.log")" >&2
}
start_etagd() { # NAME BINARY PORT
  start "$1" "$3" "$2" serve "$work/site" --listen "127.0.0.1:$3" --workers 1
  [ -z "$secure" ] || start "$1-tls" "$(($3 + 10))" "$2" serve "$work/site" \
    --listen "127.0.0.1:$(($3 + 10))" --workers 1 --tls-cert "$work/cert.pem" --tls-key "$work/key.pem"
}

secure=
if has h2load && has openssl; then secure=yes; else
  echo "h2load or openssl is missing: TLS is left out" >&2
fi
peer_names=()
start_etagd etagd "$etagd" 18080
if [ -n "$other" ]; then
  peer_names+=(other)
  start_etagd other "$other" 18084
fi
if has nginx; then
  peer_names+=(nginx)
  nginx_conf plain 18081 > "$work/nginx.conf"
  nginx_conf tls "18091 ssl http2" > "$work/nginx-tls.conf"
  start nginx 18081 nginx -p "$work" -c "$work/nginx.conf"
  [ -z "$secure" ] || start nginx-tls 18091 nginx -p "$work" -c "$work/nginx-tls.conf"
fi
if has lighttpd; then
  peer_names+=(lighttpd)
  lighttpd_conf 18082 > "$work/lighttpd.conf"
  { lighttpd_conf 18092; printf 'server.modules += ("mod_openssl")\nssl.engine = "enable"\nssl.pemfile = "%s"\n' "$work/both.pem"; } > "$work/lighttpd-tls.conf"
  start lighttpd 18082 lighttpd -D -f "$work/lighttpd.conf"
  [ -z "$secure" ] || start lighttpd-tls 18092 lighttpd -D -f "$work/lighttpd-tls.conf"
fi
if has h2o; then
  peer_names+=(h2o)
  h2o_conf "port: 18083" > "$work/h2o.conf"
  h2o_conf "port: 18093, ssl: {certificate-file: $work/cert.pem, key-file: $work/key.pem}" > "$work/h2o-tls.conf"
  start h2o 18083 h2o -c "$work/h2o.conf"
  [ -z "$secure" ] || start h2o-tls 18093 h2o -c "$work/h2o-tls.conf"
fi

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

ask() { # CLIENT CONNECTIONS URL [FIELD]: how many requests were answered
  local client=$1 connections=$2 url=$3 field=()
  [ -z "${4:-}" ] || field=(-H "$4")
  case $client in
    wrk)
      taskset -c 1 wrk -t1 -c"$connections" -d"${seconds}s" "${field[@]}" "$url" \
        | awk '/requests in/ {print $1}'
      ;;
    h1 | h2)
      local version=()
      [ "$client" = h2 ] || version=(--h1)
      taskset -c 1 h2load -t1 -c"$connections" -m1 -D"$seconds" "${version[@]}" "${field[@]}" "$url" \
        | awk '/^requests:/ {print $8}'
      ;;
  esac
}

measure() { # CASE CLIENT CONNECTIONS FILE [conditional]
  local case=$1 client=$2 connections=$3 file=$4 kind=${5:-} name base tag field before requests after
  [[ $case =~ $cases ]] || return 0
  for name in etagd "${peer_names[@]}"; do
    base=http://127.0.0.1
    if [ "$client" != wrk ]; then name=$name-tls base=https://127.0.0.1; fi
    [ -n "${port[$name]:-}" ] || continue
    base=$base:${port[$name]}
    field=
    if [ -n "$kind" ]; then
      tag=$(curl -skI "$base/$file" | tr -d '\r' | awk 'tolower($1) == "etag:" {print $2}')
      field="If-None-Match: $tag"
      if [ "$(curl -sk -o /dev/null -w '%{http_code}' -H "$field" "$base/$file")" != 304 ]; then
        echo "$case: $name answers nothing with 304, and is left out" >&2
        continue
      fi
    fi
    before=$(cpu "${pids[$name]}")
    requests=$(ask "$client" "$connections" "$base/$file" "$field")
    after=$(cpu "${pids[$name]}")
    awk -v case="$case" -v name="${name%-tls}" -v requests="$requests" -v ticks=$((after - before)) -v tick="$tick" \
      'BEGIN {if (requests > 0) printf "%s\t%s\t%f\n", case, name, ticks / tick * 1e6 / requests}' >> "$work/results"
  done
}

for _ in $(seq "$rounds"); do
  for connections in 64 512 2048; do
    measure "304, $connections connections" wrk "$connections" 4k.bin conditional
    measure "4 KiB, $connections connections" wrk "$connections" 4k.bin
  done
  measure "64 KiB" wrk 64 64k.bin
  measure "1 MiB" wrk 64 1m.bin
  measure "8 MiB" wrk 16 8m.bin
  for client in ${secure:+h1 h2}; do
    measure "304, TLS, $client" "$client" 64 4k.bin conditional
    measure "4 KiB, TLS, $client" "$client" 64 4k.bin
  done
done

# Lines come in the order of the cases; sorted by value for the median.
awk -F'\t' -v peers="${peer_names[*]}" '
  !($1 in place) {place[$1] = ++number; order[number] = $1}
  {key = $1 FS $2; values[key] = values[key] " " $3}
  function median(key,   list, length_, i, j, kept) {
    length_ = split(values[key], list, " ")
    for (i = 2; i <= length_; i++) {
      kept = list[i] + 0
      for (j = i - 1; j > 0 && list[j] + 0 > kept; j--) list[j + 1] = list[j]
      list[j + 1] = kept
    }
    return length_ ? list[int((length_ + 1) / 2)] + 0 : 0
  }
  END {
    split(peers, names, " ")
    printf "%-24s %9s", "us CPU per request", "etagd"
    for (i = 1; i in names; i++) printf " %9s", names[i]
    print "     ratio"
    for (n = 1; n <= number; n++) {
      case_ = order[n]; own = median(case_ FS "etagd"); best = 0
      printf "%-24s %9.2f", case_, own
      for (i = 1; i in names; i++) {
        value = median(case_ FS names[i])
        if (names[i] != "other" && value > 0 && (best == 0 || value < best)) best = value
        if (value > 0) printf " %9.2f", value; else printf " %9s", "-"
      }
      if (best > 0) printf " %9.2f\n", own / best; else print "         -"
    }
  }' "$work/results"
