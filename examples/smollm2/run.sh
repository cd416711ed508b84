#!/usr/bin/env bash
# Trains SmolLM2-135M-Instruct by SFT, DRO, KTO and RPO on rated answers and compares them on prompts that are held out:
#
#   examples/smollm2/run.sh HuggingFaceTB/SmolLM2-135M-Instruct runs/smollm2 ratings.jsonl [MORE.jsonl ...]
#
# The model is a hub id or a directory; each file holds a prompt with its rated answers in a row. About an hour on two cores
# for 80 prompts with 4 answers each. Stopped, the same command goes on.
set -euo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0"
  exit 2
fi
rpo=${RPO:-rpo}
here=$(cd "$(dirname "$0")" && pwd)
model=$1
out=$2
shift 2
ask() {
  "$rpo" generate --model "$1" --chat-template always --max-new-tokens 96 \
    "What should I do on a rainy Sunday?" "Explain why the sky is blue to a child."
}
for data in "$@"; do
  run=$out/$(basename "${data%.*}")
  resume=$([ -e "$run/start.json" ] && echo --resume || true)
  # shellcheck disable=SC2086
  "$rpo" compare --config "$here/compare.toml" --model "$model" --data "$data" --out "$run" $resume
  echo "== answers of the start"
  ask "$model"
  for objective in sft dro kto rpo; do
    last=$run/$objective-42/last
    echo "== answers after $objective"
    ask "$last"
  done
done
