#!/usr/bin/env bash
# Two machines, played by two torchrun on this one that meet at a port of localhost.
# On real machines run one torchrun on each, with the first one's name in the place of localhost:
#   torchrun --nnodes 2 --nproc-per-node gpu --rdzv-backend c10d --rdzv-endpoint FIRST:29400 \
#       --rdzv-id 1 --max-restarts 3 -m byol pretrain DATA --out SHARED/FOLDER
#
#   examples/two_nodes.sh 1 runs/two-nodes --epochs 2
set -euo pipefail
processes=${1:-1} out=${2:-runs/two-nodes}
shift $(($# < 2 ? $# : 2))
port=${PORT:-29400}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
nodes=()
trap 'kill "${nodes[@]}" 2>/dev/null || true' EXIT
for node in 0 1; do
    python -m torch.distributed.run --nnodes 2 --nproc-per-node "$processes" --rdzv-id 1 \
        --rdzv-backend c10d --rdzv-endpoint "localhost:$port" --max-restarts 1 \
        -m byol pretrain --device cpu --out "$out" "$@" &
    nodes+=($!)
done
wait "${nodes[0]}"
wait "${nodes[1]}"
trap - EXIT
