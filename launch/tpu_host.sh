#!/usr/bin/env bash
# What tpu_vm.sh starts on each host of a TPU VM, in the copied checkout.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

usage() {
  cat <<'USAGE'
usage: launch/tpu_host.sh [--dry-run] begin|work FLAG ...

  begin      opens the tmux session "bam" for `work`, once an older one ended
  work       installs the checkout into .venv and runs the program with FLAG
             ...; its log goes to bam.log, its status to bam.status
  --dry-run  print the commands, run none
USAGE
}

# Ubuntu 22.04, which TPU VMs come with, has Python 3.10: too old.
make_venv() {
  if python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    run python3 -m venv .venv
  else
    run python3 -m pip install -q --user uv &&
      run python3 -m uv venv --seed --python 3.12 .venv
  fi
}

case "${1:-}" in
  --help) usage && exit ;;
  --dry-run) dry_run=true && shift ;;
esac
part=${1:-}
case "${part}" in
  begin)
    shift
    if ! "${dry_run}"; then
      # The program may still be saving what the notice has stopped.
      for ((i = 0; i < 60; i++)); do
        tmux has-session -t =bam 2>/dev/null || break
        [[ "${i}" != 59 ]] || fail 'session bam still runs; end it, or wait'
        sleep 1
      done
      rm -f bam.status
    fi
    run tmux new-session -d -s bam launch/tpu_host.sh work "$@"
    ;;
  work)
    shift
    "${dry_run}" || exec >>bam.log 2>&1
    status=0
    { [[ -d .venv ]] || make_venv; } &&
      run .venv/bin/pip install -q '.[tpu,tfds,gcs]' &&
      run .venv/bin/python -m bam_jax.main "$@" || status=$?
    "${dry_run}" || echo "${status}" >bam.status
    ;;
  *) fail "${part:-begin or work}: give begin or work; see --help" ;;
esac
