#!/usr/bin/env bash
# Runs a plan on one machine's GPUs, its seeds shared out among them.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "${here}/common.sh"

usage() {
  cat <<'USAGE'
usage: launch/gpu.sh [OPTION ...] --workdir=DIR CONFIG [FLAG ...]

Gives each GPU a shard of the plan's seeds:
  python -m bam_jax.main --config=CONFIG --config.plan.shard=i/n FLAG ...
in DIR/shards/i with its log in DIR/shards/i.log, then merges the shards into
DIR and reports on all of them. With one GPU there is nothing to share or merge.
Given again, it goes on where it stopped. Told to stop (Ctrl-C, SIGTERM), all
shards save their steps and it ends with 75.

To train one model on all GPUs instead, give the command above without the
shard: it uses every GPU that it sees.

  --workdir=DIR  where everything goes, a local directory
  --gpus=0,1     which GPUs, by number or UUID; by default all that nvidia-smi
                 lists
  --python=PATH  the Python with bam_jax's requirements; default: python
  --dry-run      print the commands, run none
  CONFIG         a config file, or a name in configs/, such as minilm
  FLAG           further flags of the program
USAGE
}

gpus='' python=python workdir=''
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help) usage && exit ;;
    --dry-run) dry_run=true ;;
    --gpus=*) gpus=${1#*=} ;;
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
[[ "${workdir}" != *://* && "${workdir}" != *,* ]] ||
  fail "--workdir=${workdir}: give a local directory without a comma"
command -v "${python}" >/dev/null ||
  fail "--python=${python}: no such program; give the path of a Python"
if [[ -z "${gpus}" ]]; then
  gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null) ||
    fail 'nvidia-smi lists no GPU; say which with --gpus=0,1'
  gpus=${gpus//$'\n'/,}
fi
[[ "${gpus}" =~ ^[^,]+(,[^,]+)*$ ]] || fail "--gpus=${gpus}: give 0 or 0,1,2"
IFS=, read -ra gpus <<<"${gpus}"
count=${#gpus[@]}
program=("${python}" -m bam_jax.main "--config=${config}")

if [[ "${count}" == 1 ]]; then
  show env "CUDA_VISIBLE_DEVICES=${gpus[0]}" "${program[@]}" \
    "--workdir=${workdir}" "$@"
  if "${dry_run}"; then exit; fi
  export CUDA_VISIBLE_DEVICES=${gpus[0]}
  exec "${here}/again.sh" "${program[@]}" "--workdir=${workdir}" "$@"
fi

pids=() sources=() stopping=false
pass_on() {
  interrupted=true
  stopping=true
  kill -TERM "${pids[@]}" 2>/dev/null || true
}
"${dry_run}" || mkdir -p "${workdir}/shards" 2>/dev/null ||
  fail "--workdir=${workdir}: cannot be written; choose another"
trap pass_on TERM INT USR1
for ((i = 0; i < count; i++)); do
  if "${stopping}"; then break; fi
  shard=${workdir}/shards/${i}
  command=("${program[@]}" "--workdir=${shard}"
    "--config.plan.shard=${i}/${count}" "$@")
  show env "CUDA_VISIBLE_DEVICES=${gpus[i]}" "${command[@]}"
  sources+=("${shard}")
  if ! "${dry_run}"; then
    CUDA_VISIBLE_DEVICES=${gpus[i]} "${here}/again.sh" "${command[@]}" \
      >>"${shard}.log" 2>&1 &
    pids+=($!)
  fi
done

result=0
for i in "${!pids[@]}"; do
  status=0
  await "${pids[i]}" || status=$?
  [[ "${status}" != 0 ]] || continue
  printf 'launch/gpu.sh: shard %s ended with %s: %s\n' \
    "${i}" "${status}" "$(tail -n 1 "${sources[i]}.log")" >&2
  # What cannot be fixed by giving the command again is what counts.
  if [[ "${result}" == 0 || "${result}" == 75 ]]; then result=${status}; fi
done
[[ "${result}" == 0 ]] || exit "${result}"
trap - TERM INT USR1
if "${stopping}"; then exit 75; fi
joined=$(IFS=, && printf '%s' "${sources[*]}")
merge=("${program[@]}" "--workdir=${workdir}" --mode=merge "--from=${joined}"
  "$@")
show "${merge[@]}"
"${dry_run}" || exec "${merge[@]}"
