#!/usr/bin/env bash
# What a job of slurm.sh runs. Slurm copies it, so it stands alone.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: slurm_job.sh [--dry-run] PART DIR N COMMAND [ARGUMENT ...]

Runs COMMAND in a job of Slurm, with what makes it the job's part, and queues
the job again where it ends with 75.

  nodes  one program in DIR, over the job's N nodes
  shard  shard $SLURM_ARRAY_TASK_ID of N, in DIR/shards/$SLURM_ARRAY_TASK_ID
  merge  the N shards brought together in DIR

  --dry-run  print the command, run nothing
USAGE
}

fail() {
  printf 'launch/slurm_job.sh: %s\n' "$*" >&2
  exit 2
}

dry_run=false
case "${1:-}" in
  --help) usage && exit ;;
  --dry-run) dry_run=true && shift ;;
esac
[[ $# -ge 4 ]] || fail 'PART, DIR, N and COMMAND are needed; see --help'
part=$1 workdir=$2 count=$3
shift 3
case "${part}" in
  nodes)
    flags=("--workdir=${workdir}")
    if [[ "${count}" != 1 ]]; then flags+=(--distributed=auto); fi
    ;;
  shard)
    shard=${SLURM_ARRAY_TASK_ID:-}
    [[ -n "${shard}" ]] || fail 'SLURM_ARRAY_TASK_ID is not set; use slurm.sh'
    flags=("--workdir=${workdir}/shards/${shard}"
      "--config.plan.shard=${shard}/${count}")
    ;;
  merge)
    sources=()
    for ((i = 0; i < count; i++)); do sources+=("${workdir}/shards/${i}"); done
    flags=("--workdir=${workdir}" --mode=merge
      "--from=$(IFS=, && printf '%s' "${sources[*]}")")
    ;;
  *) fail "${part}: is none of nodes, shard, merge" ;;
esac

# As of Slurm 22.05 srun takes the job's --cpus-per-task from here alone.
if [[ -n "${SLURM_CPUS_PER_TASK:-}" ]]; then
  export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK}
fi
# Through srun the program is a step of the job: it gets the signals itself.
command=(srun --kill-on-bad-exit=1 "$@" "${flags[@]}")
printf '+'
printf ' %q' "${command[@]}"
printf '\n'
if "${dry_run}"; then exit; fi
status=0
"${command[@]}" || status=$?
if [[ "${status}" == 75 ]]; then
  # The last job of an array has the array's own number: its place is named too.
  id=${SLURM_JOB_ID}
  if [[ "${part}" == shard ]]; then id=${SLURM_ARRAY_JOB_ID}_${shard}; fi
  scontrol requeue "${id}"
fi
exit "${status}"
