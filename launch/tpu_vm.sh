#!/usr/bin/env bash
# Runs a plan on a Cloud TPU VM: a single host, or all hosts of a slice.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/common.sh

usage() {
  cat <<'USAGE'
usage: launch/tpu_vm.sh [--slice] [--dry-run] NAME ZONE CONFIG [FLAG ...]

Copies the last commit of this checkout to an existing TPU VM, installs it there
(launch/tpu_host.sh) and runs
  python -m bam_jax.main --config=CONFIG FLAG ...
in a tmux session "bam" that outlives the connection. Given again once that has
ended, the run goes on where it stopped. Its log is bam-jax/bam.log on the VM,
the status it ended with bam-jax/bam.status.

  --slice    the TPU VM has several hosts, such as v5litepod-16: the program
             runs on all of them, as one (--distributed=auto)
  --dry-run  print the commands, run none
  NAME ZONE  of the TPU VM, as `gcloud compute tpus tpu-vm list` shows them
  CONFIG     a config file of this checkout, such as configs/bam.py, or a name
             in configs/, such as bam
  FLAG       further flags, such as --workdir=gs://BUCKET/bam, or of a slice
             --workdir=/mnt/bam, mounted by all its hosts; paths are the VM's

launch/tpu_queue.sh asks for the TPU VM too, and for another when it is taken.
USAGE
}

worker=0 extra=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help) usage && exit ;;
    --dry-run) dry_run=true ;;
    --slice) worker=all extra=(--distributed=auto) ;;
    -*) fail "$1: no such option before NAME; see --help" ;;
    *) break ;;
  esac
  shift
done
name=${1:-} zone=${2:-} config=${3:-}
[[ -n "${zone}" ]] || fail 'NAME and ZONE are missing; see --help'
check_config "${config}"
git cat-file -e "HEAD:./${config_file}" 2>/dev/null ||
  fail "${config}: is not in the last commit, which is copied; commit it"
shift 3

target=("--zone=${zone}" "--worker=${worker}")
flags=("--config=${config}" "${extra[@]}" "$@")
begin="mkdir -p bam-jax && tar -xf bam-jax.tar -C bam-jax && \
bam-jax/launch/tpu_host.sh begin$(printf ' %q' "${flags[@]}")"

archive=bam-jax.tar
if ! "${dry_run}"; then
  directory=$(mktemp -d)
  trap 'rm -rf "${directory}"' EXIT
  archive=${directory}/bam-jax.tar
fi
run git archive --format=tar "--output=${archive}" HEAD
run gcloud compute tpus tpu-vm scp "${archive}" "${name}:bam-jax.tar" \
  "${target[@]}"
run gcloud compute tpus tpu-vm ssh "${name}" "${target[@]}" "--command=${begin}"
echo 'Follow it:'
show gcloud compute tpus tpu-vm ssh "${name}" "--zone=${zone}" \
  '--command=tail -f bam-jax/bam.log'
