#!/usr/bin/env bash
# Starts a plan on GKE as a JobSet: on a TPU slice, GPU nodes, or as GPU shards.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
source "${here}/common.sh"

usage() {
  cat <<'USAGE'
usage: launch/gke.sh tpu|gpu|shards OPTION ... CONFIG [FLAG ...]

Fills in launch/gke/{tpu,gpu,shards}.yaml and gives it to kubectl. The cluster
needs JobSet (jobset.sigs.k8s.io, 0.8 or newer) and a claim that all pods may
write to; it is mounted at /work, and the program works in /work/NAME.

  tpu     one program on the hosts of a TPU slice
  gpu     one program over GPU nodes
  shards  a shard of the plan's seeds in each pod, in /work/NAME/shards/i, then
          a pod that merges them

A pod that ends with 75, or whose node is taken, is started again and goes on
where it stopped; one that ends with 2, a user's mistake, ends all.

  --name=NAME         of the JobSet
  --image=IMAGE       made from launch/Dockerfile
  --accelerator=TYPE  of the nodes: tpu-v5-lite-podslice, nvidia-h100-80gb, ...
  --topology=4x4      of the slice (tpu)
  --hosts=N           hosts of the slice, nodes, or shards (default: 1)
  --chips=N           TPU chips or GPUs a host (default: 4 for tpu, else 1)
  --claim=CLAIM       a PersistentVolumeClaim (default: bam)
  --restarts=N        restarts after failures other than 2 (default: 100)
  --spot              on spot nodes
  --dry-run           print the YAML, start nothing
  CONFIG              a config file in the image, or a name in configs/
  FLAG                further flags, such as --config.data.dir=/work/glue
USAGE
}

# A line as a JSON string, which is YAML too.
quote() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

quote_all() {
  local word text=
  for word in "$@"; do text+=", $(quote "${word}")"; done
  printf '%s' "${text#, }"
}

# Fails unless its second argument is a name as Kubernetes has them.
check_name() {
  [[ "$2" =~ ^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    fail "$1=$2: needs a name of at most 40 a-z, 0-9 and -; see --help"
}

[[ "${1:-}" != --help ]] || { usage && exit; }
kind=${1:-}
[[ "${kind}" =~ ^(tpu|gpu|shards)$ ]] ||
  fail "${kind:-KIND}: give tpu, gpu or shards first; see --help"
shift
name='' image='' accelerator='' topology='' hosts=1 claim=bam restarts=100
spot='# on demand' chips=1 sources=
if [[ "${kind}" == tpu ]]; then chips=4; fi
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help) usage && exit ;;
    --dry-run) dry_run=true ;;
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --hosts=*) hosts=${1#*=} && check_count --hosts "${hosts}" ;;
    --chips=*) chips=${1#*=} && check_count --chips "${chips}" ;;
    --claim=*) claim=${1#*=} ;;
    --restarts=*) restarts=${1#*=} && check_count --restarts "${restarts}" ;;
    --spot) spot='cloud.google.com/gke-spot: "true"' ;;
    -*) fail "$1: no such option before CONFIG; see --help" ;;
    *) break ;;
  esac
  shift
done
config=${1:-}
check_config "${config}"
shift
check_name --name "${name}"
check_name --claim "${claim}"
check_name --accelerator "${accelerator}"
[[ "${image}" =~ ^[-A-Za-z0-9./:_@]+$ ]] || fail "--image=${image}: is no image"
[[ "${kind}" != tpu || "${topology}" =~ ^[0-9]+(x[0-9]+){1,2}$ ]] ||
  fail "--topology=${topology}: give one such as 4x4"

for flag in "${config}" "$@"; do
  [[ "${flag}" != *[[:cntrl:]]* ]] ||
    fail "$(printf %q "${flag}"): has a line break or a tab; leave it out"
done
program=("--config=${config}" "$@")
flags=("${program[@]}" "--workdir=/work/${name}")
merge=("${program[@]}" "--workdir=/work/${name}" --mode=merge)
# Kubernetes puts the pod's index in.
index="\$(INDEX)"
case "${kind} ${hosts}" in
  shards\ *)
    flags=("${program[@]}" "--workdir=/work/${name}/shards/${index}"
      "--config.plan.shard=${index}/${hosts}")
    for ((i = 0; i < hosts; i++)); do
      sources+=",/work/${name}/shards/${i}"
    done
    merge+=("--from=${sources#,}")
    ;;
  *\ 1) ;;
  tpu\ *) flags+=(--distributed=auto) ;;
  gpu\ *)
    flags+=("--coordinator=${name}-node-0-0.${name}:8476"
      "--num_processes=${hosts}" "--process_id=${index}")
    ;;
esac

yaml=$(<"${here}/gke/${kind}.yaml")
fill() { yaml=${yaml//"\${$1}"/"$2"}; }
fill NAME "$(quote "${name}")"
fill IMAGE "$(quote "${image}")"
fill ACCELERATOR "$(quote "${accelerator}")"
fill TOPOLOGY "$(quote "${topology}")"
fill HOSTS "${hosts}"
fill CHIPS "${chips}"
fill CLAIM "$(quote "${claim}")"
fill RESTARTS "${restarts}"
fill SPOT "${spot}"
# The user's own last, so that nothing is filled into them.
fill MERGE "[$(quote_all "${merge[@]}")]"
fill ARGS "[$(quote_all "${flags[@]}")]"
if "${dry_run}"; then
  printf '%s\n' "${yaml}"
else
  kubectl apply -f - <<<"${yaml}"
fi
