#!/bin/sh
# Makes docs/demo-report.png, the README's picture of the demo's report: scripts/screenshot.sh [REPORT.html [PICTURE.png]]
# Needs chromium (or what CHROMIUM names) and, to make the picture small, pngquant.
set -eu
report=${1:-runs/demo/report.html}
picture=${2:-docs/demo-report.png}
[ -f "$report" ] || { echo "$report does not exist; make it by: cargo run --release -- demo" >&2; exit 1; }
mkdir -p "$(dirname "$picture")"
"${CHROMIUM:-chromium}" --headless --no-sandbox --hide-scrollbars --blink-settings=preferredColorScheme=1 \
  --window-size=1280,"${HEIGHT:-905}" --screenshot="$(realpath "$picture")" "file://$(realpath "$report")" 2>/dev/null
if command -v pngquant >/dev/null; then
  pngquant --force --ext .png --speed 1 128 -- "$picture"
fi
echo "$picture: $(wc -c < "$picture") bytes"
