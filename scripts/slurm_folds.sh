#!/bin/bash
# Train the five folds of a data set as a SLURM array, each on a GPU of its own, over as many time limits as it takes:
#
#   sbatch scripts/slurm_folds.sh DATASET [OPTIONS of autoseg_train, without --overwrite]
#   sbatch --array=0-4,5 --time=8:00:00 --mem=64G scripts/slurm_folds.sh DATASET -c 3d_fullres --name mine
#
# Five minutes before the time limit SLURM sends SIGUSR1 to this script alone. It lets the training save and end, and
# queues the job again, which goes on with --resume. A fold that failed is not queued again, nor one that was cancelled.
# Number 5 of the array is the fold "all", 6 its further seed "all_seed1", and so on: --array=5-9 trains five seeds.
#SBATCH --job-name=autoseg
#SBATCH --array=0-4
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --output=autoseg_%A_%a.log
#SBATCH --open-mode=append
set -u

fold=$SLURM_ARRAY_TASK_ID
if [ "$fold" = 5 ]; then fold=all; elif [ "$fold" -gt 5 ]; then fold=all_seed$((fold - 5)); fi
at_limit=

trap 'at_limit=yes; kill -TERM "$!"' USR1
trap 'kill -TERM "$!"' TERM INT
autoseg_train "$1" "$fold" "${@:2}" --resume &
while kill -0 "$!" 2>/dev/null; do wait "$!"; done # a signal ends the wait, not the training
wait "$!"
code=$?

if [ -n "$at_limit" ] && [ "$code" != 0 ]; then
    trap '' TERM # queuing again ends this script
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
