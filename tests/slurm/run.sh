#!/usr/bin/env bash
# Trains under a real Slurm: out of time, told to requeue, node killed; equal to never disturbed.
#   apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
#   tests/slurm/run.sh [FOLDER]        as root, some minutes
set -euo pipefail
for needed in munged slurmctld slurmd srun; do
    command -v $needed > /dev/null || { echo "skipped: there is no $needed here"; exit 0; }
done
repository=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$(mktemp -d /tmp/slurm.XXXXXX)}
export PYTHONPATH=$repository WANDB_MODE=offline OMP_NUM_THREADS=1
python=${PYTHON:-$repository/.venv/bin/python}
source "$repository/tests/slurm/cluster.sh"
mkdir -p "$folder" && cd "$folder"
trap down EXIT
up "$folder/slurm"

"$python" -m datamodules synthesize --images 400
small=(--data.root=data/demo --data.size=64 --data.batch_size=16 --data.num_workers=1
    --model.network.drop_rate=0.2 --data.split.test_images=3 --data.split.val_images=2
    --trainer.log_every_n_steps=1)
long=--trainer.max_epochs=24 short=--trainer.max_epochs=8

lines() { cat "runs/$1/seed0/metrics.jsonl" 2> /dev/null | wc -l; }
say() { echo "$(date +%T) $*"; }
wait_for_lines() { # NAME MORE: until the run has logged as many more
    local goal=$(($(lines "$1") + $2))
    until [ "$(lines "$1")" -ge $goal ]; do sleep 0.2; done
}
submit() { # NAME EPOCHS [FLAGS]
    "$python" -m experiments submit small_ce --name "$1" --gpus 0 --cpus 1 "${@:3}" \
        -- "${small[@]}" "$2"
}
job() { squeue --noheader --format %A --name "$1"; }
wait_for_end() {
    while [ -n "$(squeue --noheader --states=all --name "$1" --format %T | grep -v 'COMPLETED\|FAILED\|TIMEOUT\|CANCELLED')" ]; do
        sleep 1
    done
    scontrol show job "$2" | grep -o 'JobState=[A-Z]*\|Restarts=[0-9]*\|ExitCode=[0-9:]*' | paste -s
}
equal() {
    "$python" - "$1" "$2" << 'PY'
import sys, torch
one, two = (torch.load(f"runs/{name}/seed0/last.ckpt")["state_dict"] for name in sys.argv[1:])
assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
print(f"equal, bit for bit: {sys.argv[1]} and {sys.argv[2]}, {len(one)} tensors")
PY
}

say "never disturbed: one process, and two"
fit() { "$python" -m experiments fit --config=small_ce "${small[@]}" \
    --trainer.accelerator=cpu --trainer.enable_progress_bar=false "$@" > "$folder/fit.log" 2>&1; }
fit --name one $long
fit --name two $short --trainer.devices=2 --trainer.strategy=ddp

say "out of time: Slurm sends SIGUSR1 ahead of its limit of one minute"
submit timed $long --time 1 --notice 30
number=$(job timed)
wait_for_end timed "$number"
equal one timed

say "two processes: SIGUSR1, a requeue that comes with SIGTERM, and a node that dies"
submit disturbed $short --processes 2
number=$(job disturbed)
wait_for_lines disturbed 30
say "scancel --signal=USR1"
scancel --signal=USR1 "$number"
wait_for_lines disturbed 30
say "scontrol requeue"
scontrol requeue "$number"
wait_for_lines disturbed 45
say "the node dies"
node_dies
until squeue --noheader --format %T --job "$number" | grep -q PENDING; do sleep 0.5; done
say "the node comes back; the job is $(squeue --noheader --format '%T, %r' --job "$number")"
slurmd
"$python" -m experiments status
wait_for_end disturbed "$number"
equal two disturbed
"$python" -m experiments status

say "an array of two seeds"
submit arrayed --trainer.max_epochs=2 --seeds 0-1
wait_for_end arrayed "$(job arrayed | head -1)"
for seed in 0 1; do grep -c val/balanced_accuracy runs/arrayed/seed$seed/metrics.jsonl; done

say "what the job wrote"
cat runs/disturbed/seed0/slurm.log
