#!/bin/bash
# One run on all GPUs of several nodes, a task a node:
#
#     sbatch --nodes=4 scripts/slurm_hosts.sh configs/lsp_eglpp.py /shared/lsp-eglpp
#
# The workdir has to be on a file system that all nodes share. Further arguments go to
# jalpose.main. The hosts find each other by what srun tells them; one that dies takes
# the others with it, and the job goes on where it was when it is queued again.
#SBATCH --job-name=jalpose
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Five minutes before the end SIGTERM: all hosts save at the same step and exit with 75.
#SBATCH --signal=TERM@300

config=$1 workdir=$2
shift 2
srun --kill-on-bad-exit=1 python -m jalpose.main --config="$config" \
  --workdir="$workdir" "$@"
code=$?
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
