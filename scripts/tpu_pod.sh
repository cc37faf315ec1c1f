#!/bin/bash
# One run on all hosts of a TPU pod slice, from any machine with gcloud:
#
#     scripts/tpu_pod.sh my-pod us-central2-b configs/lsp_eglpp.py /mnt/shared/lsp-eglpp
#
# jalpose is to be installed on every host (the same command with `pip install`), and
# the workdir on a file system that all of them have mounted. Run it again after a
# preemption: it goes on where it was.
set -euo pipefail

pod=$1 zone=$2 config=$3 workdir=$4
shift 4
gcloud compute tpus tpu-vm ssh "$pod" --zone="$zone" --worker=all --command="cd jalpose &&
  python3 -m jalpose.main --cluster=on --config=${config@Q} --workdir=${workdir@Q} ${*@Q}"
