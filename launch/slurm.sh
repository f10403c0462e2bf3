#!/usr/bin/env bash
# Submits a plan to Slurm: one job over several nodes, or an array of shards.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "${here}/common.sh"

usage() {
  cat <<'USAGE'
usage: launch/slurm.sh [OPTION ...] --workdir=DIR CONFIG [FLAG ...]

Submits, with sbatch, from the directory it is called in,
  python -m bam_jax.main --config=CONFIG FLAG ...
either as one program over several nodes (--nodes) or as an array of jobs that
share the plan's seeds out among them (--shards), each in DIR/shards/i, followed
by a job that merges them into DIR. Logs go to DIR/slurm-*.out.

Two minutes before its time is up a job is sent SIGUSR1: it saves its steps,
ends with 75 and is queued again, to go on where it stopped. A user's mistake
(2) or a bug (1) is not queued again.

  --workdir=DIR      where everything goes; a file system that all nodes share
  --nodes=N          N nodes, one program (default: 1)
  --shards=N         N jobs, a shard of the plan each
  --gpus-per-node=G  asks for G GPUs a node. Over several nodes each GPU has a
                     process of its own, as JAX expects it of Slurm
  --sbatch=OPTION    a further option for sbatch, as often as needed, such as
                     --sbatch=--time=4:00:00
  --python=PATH      a Python with bam_jax's requirements; default: python
  --dry-run          print the commands, submit nothing
  CONFIG             a config file, or a name in configs/, such as minilm
  FLAG               further flags of the program
USAGE
}

gpus='' nodes='' shards='' python=python workdir='' options=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help) usage && exit ;;
    --dry-run) dry_run=true ;;
    --gpus-per-node=*) gpus=${1#*=} && check_count --gpus-per-node "${gpus}" ;;
    --nodes=*) nodes=${1#*=} && check_count --nodes "${nodes}" ;;
    --shards=*) shards=${1#*=} && check_count --shards "${shards}" ;;
    --sbatch=*) options+=("${1#*=}") ;;
    --python=*) python=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    -*) fail "$1: no such option before CONFIG; see --help" ;;
    *) break ;;
  esac
  shift
done
config=${1:-}
check_config "${config}"
shift
[[ -n "${workdir}" ]] || fail '--workdir is missing; see --help'
[[ "${workdir}" != *[,%]* && "${workdir}" != *://* ]] ||
  fail "--workdir=${workdir}: give a directory without a comma or a % sign"
[[ -z "${nodes}" || -z "${shards}" ]] ||
  fail '--nodes and --shards exclude each other; give one of them'
program=("${python}" -m bam_jax.main "--config=${config}" "$@")
job=("${here}/slurm_job.sh")
submit=(sbatch --parsable --job-name=bam --open-mode=append)
# Without B: the notice goes to the program, not to the script around it.
restart=(--requeue --signal=USR1@120)
if [[ -n "${gpus}" ]]; then restart+=("--gpus-per-node=${gpus}"); fi

"${dry_run}" || mkdir -p "${workdir}" 2>/dev/null ||
  fail "--workdir=${workdir}: cannot be written; choose another"
if [[ -z "${shards}" ]]; then
  tasks=1
  if [[ "${nodes:-1}" != 1 ]]; then tasks=${gpus:-1}; fi
  run "${submit[@]}" "--output=${workdir}/slurm-%j.out" "${restart[@]}" \
    "--nodes=${nodes:-1}" "--ntasks-per-node=${tasks}" "${options[@]}" \
    "${job[@]}" nodes "${workdir}" "${nodes:-1}" "${program[@]}"
  exit
fi
array=("${submit[@]}" "--output=${workdir}/slurm-%A_%a.out" "${restart[@]}"
  --nodes=1 --ntasks=1 "--array=0-$((shards - 1))" "${options[@]}"
  "${job[@]}" shard "${workdir}" "${shards}" "${program[@]}")
show "${array[@]}"
id=ARRAY
if ! "${dry_run}"; then
  id=$("${array[@]}") || fail 'sbatch refused the array; see its message above'
  # --parsable prints ID or ID;CLUSTER.
  id=${id%%;*}
fi
run "${submit[@]}" "--output=${workdir}/slurm-%j.out" --nodes=1 --ntasks=1 \
  "--dependency=afterok:${id}" --kill-on-invalid-dep=yes "${options[@]}" \
  "${job[@]}" merge "${workdir}" "${shards}" "${program[@]}"
