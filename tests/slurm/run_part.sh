#!/usr/bin/env bash

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
"$python" -m experiments.status
wait_for_end disturbed "$number"
equal two disturbed
"$python" -m experiments.status

say "what the job wrote"
cat runs/disturbed/seed0/slurm.log
