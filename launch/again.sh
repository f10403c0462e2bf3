#!/usr/bin/env bash
# Runs a command, and runs it again as long as it ends with 75.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'USAGE'
usage: launch/again.sh [--dry-run] COMMAND [ARGUMENT ...]

Runs COMMAND. Where it ends with 75, "preempted: give the same command again",
it is run again; with any other status this ends with the same one: 0 is done,
2 a mistake that no repetition fixes.

SIGTERM, SIGINT and SIGUSR1 go to COMMAND as SIGTERM, and it is not run again.

  --dry-run  print COMMAND, run nothing
USAGE
}

while [[ $# -gt 0 ]]; do
  case "$1" in
    --help) usage && exit ;;
    --dry-run) dry_run=true ;;
    -*) fail "$1: no such option; see --help" ;;
    *) break ;;
  esac
  shift
done
[[ $# -gt 0 ]] || fail 'COMMAND is missing; see --help'
if "${dry_run}"; then
  show "$@"
  exit
fi

stopping=false
child=
# shellcheck disable=SC2329  # The trap calls it.
pass_on() {
  interrupted=true
  stopping=true
  [[ -z "${child}" ]] || kill -TERM "${child}" 2>/dev/null || true
}
trap pass_on TERM INT USR1
status=75
while [[ "${status}" == 75 ]] && ! "${stopping}"; do
  "$@" &
  child=$!
  # A signal that came before the child did has not reached it.
  if "${stopping}"; then kill -TERM "${child}" 2>/dev/null || true; fi
  status=0
  await "${child}" || status=$?
done
exit "${status}"
