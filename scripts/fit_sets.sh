#!/usr/bin/env bash
# Fit the shipped parameter sets under src/holdfast/workload/generator/sets to their traces again.
#
#   scripts/fit_sets.sh TRACES [OUTPUT]
#
# TRACES holds weka-claude-code and coding-agents; HOLDFAST is the command (default: holdfast).
set -euo pipefail
traces=$1
output=${2:-src/holdfast/workload/generator/sets}
holdfast=${HOLDFAST:-holdfast}
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT

# Separate Claude Code's sessions from Codex's.
mkdir "$parts/claude" "$parts/codex"
for file in requests tools; do
  xz -dc "$traces/coding-agents/$file.jsonl.xz" > "$parts/all.jsonl"
  grep -v '"src":"agentv-codex"' "$parts/all.jsonl" > "$parts/claude/$file.jsonl"
  grep '"src":"agentv-codex"' "$parts/all.jsonl" > "$parts/codex/$file.jsonl"
done

fit() { # NAME TRACES ABOUT
  $holdfast traces study "$2" --concurrency 1 --json "$parts/study.json"
  $holdfast traces fit "$parts/study.json" --about "$3" --output "$output/$1.json"
}
fit claude-code "$traces/weka-claude-code" "\
Claude Code. Fitted to 298 sessions (17,724 turns) of WEKA's public traces in callanjfox/kv-cache-tester (Apache-2.0), \
which name no tools; global hash ids, one request a turn, the gap defect corrected."
fit claude-code-tools "$parts/claude" "\
Claude Code with its tools and sub-agents. Fitted to 286 sessions and 156 sub-agents that four public repositories publish: \
entireio/cli (MIT), FSM1/cipher-box (MIT), PackmindHub/context-evaluator (Apache-2.0), JanDeDobbeleer/oh-my-posh (MIT-style)."
fit codex "$parts/codex" "\
Codex with its tools. Fitted to 10 sessions (1,181 turns) that EntityProcess/agentv (MIT) publishes: \
with few sessions, differences between sessions are mostly chance."
