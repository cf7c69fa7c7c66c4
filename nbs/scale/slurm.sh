#!/bin/bash
#SBATCH --job-name=ssnas --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=32 --time=4:00:00
#SBATCH --requeue --signal=TERM@120
# sbatch slurm.sh run /shared/runs/mine --data cifar10 --imbalance-factor 100 --preset colab
# One torchrun on each machine. Two minutes before the time is up Slurm says so, and all ranks stop with everything on
# the disk; the same line, submitted again, goes on from there.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="${SLURM_GPUS_ON_NODE:-1}" --max-restarts=1 \
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$first:${PORT:-29500}" -m ssnas_colab "$@"
