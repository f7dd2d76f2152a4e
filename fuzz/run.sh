#!/usr/bin/env bash
# Runs fuzz targets, one after the other on one core.
#
#   fuzz/run.sh [SECONDS [TARGET...]]      60 seconds each, all targets
#
# Ten minutes each, as before a release: fuzz/run.sh 600. Needs `cargo install cargo-fuzz --locked`
# and a stable toolchain: RUSTC_BOOTSTRAP=1 lets it instrument for coverage, and sanitizers, which
# would need a nightly one, have nothing to watch: no target reaches unsafe code. What is found
# lies in fuzz/artifacts/; `cargo fuzz run -s none TARGET FILE` shows it again. What has been
# learnt stays in fuzz/corpus/, which is nobody's but this machine's; fuzz/seeds/ is everybody's.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift $(($# ? 1 : 0))
targets=("$@")
((${#targets[@]})) || targets=(entity_tags range_set accept_encoding dictionary dates target headers_file redirects_file answer front saved access inventory)

export RUSTC_BOOTSTRAP=1
for target in "${targets[@]}"; do
    echo "== $target, $seconds s"
    mkdir -p "fuzz/corpus/$target"
    cargo fuzz run -s none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -print_final_stats=1 -timeout=10 -rss_limit_mb=2048
done
