#!/usr/bin/env bash
# Checks what is depended on against deny.toml with cargo-deny, which is built on the first call (some two minutes on two cores).
# Known vulnerabilities are checked where their database can be had, which is fetched from GitHub; elsewhere it is said that they are not.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/target/tools/bin:$PATH"
command -v cargo-deny >/dev/null || cargo install cargo-deny --version 0.20.2 --locked --root target/tools || {
  echo "cargo-deny cannot be had: what is depended on is not checked" >&2
  exit 0
}
cargo deny --all-features check licenses sources
cargo deny --target x86_64-unknown-linux-gnu check bans
if timeout 120 cargo deny fetch db >/dev/null 2>&1; then
  cargo deny --all-features check --disable-fetch advisories
else
  echo "the database of advisories cannot be had: they are not checked" >&2
fi
