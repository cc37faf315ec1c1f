#!/bin/bash
# An experiment, a part a job of an array:
#
#     sbatch --array=1-5 scripts/slurm_array.sh configs/experiments/lsp.py /shared/lsp
#
# Further arguments go to jalpose.experiment. Parts that end early, by time limit or
# preemption, are put back into the queue and go on where they were.
#SBATCH --job-name=jalpose
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Five minutes before the end SIGTERM, not SIGKILL: jalpose saves and exits with 75.
#SBATCH --signal=TERM@300

config=$1 workdir=$2
shift 2
srun python -m jalpose.experiment --config="$config" --workdir="$workdir" \
  --shard="$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
code=$?
if [ "$code" -eq 75 ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
