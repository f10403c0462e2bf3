#!/usr/bin/env bash
# Asks for a Cloud TPU VM, runs a plan on it, and on another when it is taken.
set -euo pipefail
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "${root}/launch/common.sh"

usage() {
  cat <<'USAGE'
usage: launch/tpu_queue.sh [OPTION ...] NAME ZONE TYPE VERSION CONFIG [FLAG ...]

Asks for a TPU VM as a queued resource, waits for it, runs the plan there as
launch/tpu_vm.sh does, and watches it. Where the VM is taken away, or the
program ends with 75, the same is done again. When the program ends otherwise,
this ends with its status; the VM stays, until the command that is printed last.

A VM that is taken loses its disk, so let the program keep its work in a bucket:
--workdir=gs://BUCKET/DIR; that of a slice on a file system that all its hosts
have mounted.

  --spot          a spot VM: cheap, and taken when it is wanted elsewhere
  --slice         TYPE has several hosts, such as v5litepod-16
  --every=S       seconds between two looks (default: 60)
  --dry-run       print the commands, run none
  NAME ZONE       of the TPU VM and of the request for it
  TYPE VERSION    such as v5litepod-8 v2-alpha-tpuv5-lite
  CONFIG [FLAG]   as for launch/tpu_vm.sh
USAGE
}

every=60 request=() vm=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help) usage && exit ;;
    --dry-run) dry_run=true ;;
    --spot) request=(--spot) ;;
    --slice) vm=(--slice) ;;
    --every=*) every=${1#*=} && check_count --every "${every}" ;;
    -*) fail "$1: no such option before NAME; see --help" ;;
    *) break ;;
  esac
  shift
done
[[ $# -ge 4 ]] || fail 'NAME, ZONE, TYPE and VERSION are needed; see --help'
name=$1 zone=$2 type=$3 version=$4 config=${5:-}
cd "${root}"
check_config "${config}"
shift 4

queue=(gcloud compute tpus queued-resources)
create=("${queue[@]}" create "${name}" "--node-id=${name}" "--zone=${zone}"
  "--accelerator-type=${type}" "--runtime-version=${version}" "${request[@]}")
describe=("${queue[@]}" describe "${name}" "--zone=${zone}"
  '--format=value(state.state)')
delete=("${queue[@]}" delete "${name}" "--zone=${zone}" --force --quiet)
begin=("${root}/launch/tpu_vm.sh" "${vm[@]}" "${name}" "${zone}" "$@")
look=(gcloud compute tpus tpu-vm ssh "${name}" "--zone=${zone}"
  "--command=tmux has-session -t =bam 2>/dev/null && echo running ||
cat bam-jax/bam.status 2>/dev/null || echo idle")

if "${dry_run}"; then
  show "${create[@]}"
  show "${describe[@]}"
  "${root}/launch/tpu_vm.sh" --dry-run "${begin[@]:1}"
  show "${look[@]}"
  show "${delete[@]}"
  exit
fi

# The request's state; absent: there is none, unknown: nobody says.
state() {
  local text
  if text=$("${describe[@]}" 2>&1); then
    printf '%s' "${text##*$'\n'}"
  elif [[ "${text}" == *NOT_FOUND* ]]; then
    printf absent
  else
    printf 'launch/tpu_queue.sh: %s\n' "${text##*$'\n'}" >&2
    printf unknown
  fi
}

[[ "$(state)" != unknown ]] || fail 'gcloud does not answer; fix what it says'
begun=false
while true; do
  case "$(state)" in
    absent)
      begun=false
      run "${create[@]}" || fail "${name}: gcloud refused it; see above"
      ;;
    SUSPENDED)
      # Taken away: the request has had its turn.
      run "${delete[@]}" || true
      continue
      ;;
    FAILED) fail "${name}: was not to be had: $(show "${delete[@]}")" ;;
    ACTIVE)
      # A VM that is being taken does not answer; its state tells next time.
      status=$("${look[@]}" 2>/dev/null) || status=silent
      case "${begun} ${status}" in
        *\ silent) ;;
        *\ running) begun=true ;;
        false* | *\ 75 | *\ idle)
          if run "${begin[@]}"; then begun=true; fi
          ;;
        *)
          echo "The program ended with ${status}. To give the TPU VM back:"
          show "${delete[@]}"
          exit "${status}"
          ;;
      esac
      ;;
  esac
  sleep "${every}"
done
