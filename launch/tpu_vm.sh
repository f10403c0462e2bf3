#!/usr/bin/env bash
# Runs BAM-JAX on one Cloud TPU VM (a single host, such as v5litepod-8).
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: launch/tpu_vm.sh [--dry-run] NAME ZONE CONFIG [FLAG ...]

Copies this checkout to an existing TPU VM, installs it there and runs
  python -m bam_jax.main --config=CONFIG FLAG ...
in a tmux session "bam" that outlives the connection. Given again, the run goes
on where it stopped.

  --dry-run  print the commands, run none
  NAME ZONE  of the TPU VM, as `gcloud compute tpus tpu-vm list` shows them
  CONFIG     a file of configs/, such as configs/bam.py
  FLAG       further flags, such as --workdir=gs://BUCKET/bam

Make the TPU VM first:
  gcloud compute tpus tpu-vm create NAME --zone=ZONE \
    --accelerator-type=v5litepod-8 --version=v2-alpha-tpuv5-lite
USAGE
}

dry_run=false
if [[ "${1:-}" == --dry-run ]]; then
  dry_run=true
  shift
fi
if [[ $# -lt 3 || "$1" == -* ]]; then
  usage >&2
  exit 2
fi
name=$1 zone=$2 config=$3
shift 3
root=$(cd "$(dirname "$0")/.." && pwd)
if [[ ! -f "${root}/${config}" ]]; then
  echo "launch/tpu_vm.sh: ${config}: no such file in this checkout" >&2
  exit 2
fi

run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  if ! "${dry_run}"; then "$@"; fi
}

command="python3 -m venv .venv && .venv/bin/pip install -q '.[tpu,tfds,gcs]'"
command+=" && .venv/bin/python -m bam_jax.main --config=$(printf %q "${config}")"
for flag in "$@"; do
  command+=" $(printf %q "${flag}")"
done
ssh=(gcloud compute tpus tpu-vm ssh "${name}" "--zone=${zone}")
cd "${root}"
run bash -c "git archive --format=tar HEAD | $(printf '%q ' "${ssh[@]}") \
--command='mkdir -p bam-jax && tar -x -C bam-jax'"
run "${ssh[@]}" "--command=cd bam-jax && tmux new-session -d -s bam \
$(printf %q "${command} 2>&1 | tee -a bam.log")"
echo "+ follow it: ${ssh[*]} --command='tail -f bam-jax/bam.log'"
