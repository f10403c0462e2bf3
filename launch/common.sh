# shellcheck shell=bash
# What the launch scripts share; sourced by them, not run.

# Whether commands are only printed; set by --dry-run.
dry_run=false
# Set by the traps of scripts that pass a signal on.
interrupted=false

# Ends the script with one line, as a user's mistake ends the program.
fail() {
  printf 'launch/%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

# Prints a command, to be pasted into a shell as it is.
show() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
}

# Prints a command and, unless this is a dry run, runs it.
run() {
  show "$@"
  "${dry_run}" || "$@"
}

# Fails unless its second argument, what the first one names, counts from 1.
check_count() {
  [[ "$2" =~ ^[1-9][0-9]{0,3}$ ]] ||
    fail "$1=$2: is not a number from 1 to 9999; see --help"
}

# Fails unless the config of a command exists: a file, or the name of one in
# configs/, either with :ARGUMENT behind it. Sets config_file to its path.
check_config() {
  [[ -n "$1" ]] || fail 'CONFIG is missing; see --help'
  config_file=${1%%:*}
  if [[ "${config_file}" =~ ^[A-Za-z0-9_]+$ ]]; then
    config_file=$(dirname "${BASH_SOURCE[0]}")/../configs/${config_file}.py
  fi
  [[ -f "${config_file}" ]] ||
    fail "$1: no such config; give a file, or a name in configs/ such as demo"
}

# The status that a process of this shell ends with, however many trapped
# signals break the waiting off.
await() {
  local status
  while true; do
    interrupted=false
    status=0
    wait "$1" || status=$?
    "${interrupted}" || return "${status}"
  done
}
