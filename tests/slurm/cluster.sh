# A Slurm of one node on this machine, for root: `source cluster.sh; up FOLDER; ...; down`.
# Its state is in FOLDER; it listens on 127.0.0.1 alone.

up() {
    S=$1 HOST=$(hostname -s)
    mkdir -p "$S"/{etc,state,spool,log,run}
    chmod 755 "$S" "$S"/*
    head -c 1024 /dev/urandom > "$S/etc/munge.key"
    chmod 600 "$S/etc/munge.key"
    cat > "$S/etc/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$S/run/munge.socket,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort=17817
SlurmdPort=17818
SlurmctldPidFile=$S/run/slurmctld.pid
SlurmdPidFile=$S/run/slurmd.pid
StateSaveLocation=$S/state
SlurmdSpoolDir=$S/spool
SlurmctldLogFile=$S/log/slurmctld.log
SlurmdLogFile=$S/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=1,requeue_delay=1
SlurmctldTimeout=30
SlurmdTimeout=10
JobRequeue=1
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=$HOST Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF=$S/etc/slurm.conf
    munged --force --key-file="$S/etc/munge.key" --socket="$S/run/munge.socket" \
        --pid-file="$S/run/munged.pid" --seed-file="$S/run/munge.seed" \
        --log-file="$S/log/munged.log"
    slurmctld -c
    slurmd
    for _ in $(seq 40); do
        [ "$(sinfo -h -o %T 2> /dev/null)" = idle ] && return 0
        sleep 0.25
    done
    echo "Slurm does not start; see $S/log" >&2
    return 1
}

node_dies() { # with all that runs on it
    local daemon steps
    daemon=$(cat "$S/run/slurmd.pid")
    steps=$(pgrep -x slurmstepd || true)
    kill -9 "$daemon"
    for step in $steps; do
        kill -9 "$step" $(_descendants "$step") 2> /dev/null || true
    done
}

_descendants() {
    local child
    for child in $(pgrep -P "$1"); do
        echo "$child" $(_descendants "$child")
    done
}

down() {
    for daemon in slurmd slurmctld munged; do
        [ -f "$S/run/$daemon.pid" ] && kill "$(cat "$S/run/$daemon.pid")" || true
    done
}
