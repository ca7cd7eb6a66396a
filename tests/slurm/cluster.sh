#!/usr/bin/env bash
# A real one-node SLURM for the tests, as root: cluster.sh install | up | down | status
# Two CPUs, two pretended GPUs, accounting, memory limits. Everything it writes lies in $ALTPROP_SLURM (/tmp/altprop-slurm);
# clients find the cluster through SLURM_CONF=$ALTPROP_SLURM/slurm.conf. Harmless to repeat.
set -euo pipefail

FOLDER=${ALTPROP_SLURM:-/tmp/altprop-slurm}
CPUS=2
MEMORY=3000 # MB that jobs may share; small, so that a run over its memory is killed early
PACKAGES=(slurmctld slurmd slurm-client munge slurmdbd mariadb-server)
export SLURM_CONF=$FOLDER/slurm.conf

die() { echo "cluster.sh: $*" >&2; exit 1; }

running() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

# wait_for <seconds> <what> <command …>: until the command succeeds
wait_for() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "$what did not come up; see $FOLDER/*.log"
        sleep 0.2
    done
}

install_packages() {
    command -v slurmctld slurmd slurmdbd sbatch munged mariadbd >/dev/null && return
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet
    apt-get install --yes --quiet --no-install-recommends "${PACKAGES[@]}"
}

write_settings() {
    cat >"$FOLDER/slurm.conf" <<EOF
ClusterName=altprop
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$FOLDER/munge/socket
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
SlurmctldLogFile=$FOLDER/slurmctld.log
SlurmdLogFile=$FOLDER/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePass=$FOLDER/munge/socket
AccountingStorageTRES=gres/gpu
GresTypes=gpu
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=sched_interval=1,batch_sched_delay=0
DefMemPerCPU=1000
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=$MEMORY Gres=gpu:2
PartitionName=test Nodes=localhost Default=YES MaxTime=INFINITE State=UP
EOF
    for gpu in 0 1; do
        [ -e "$FOLDER/gpu$gpu" ] || mknod "$FOLDER/gpu$gpu" c 1 3
        echo "NodeName=localhost Name=gpu File=$FOLDER/gpu$gpu"
    done >"$FOLDER/gres.conf"
    cat >"$FOLDER/slurmdbd.conf" <<EOF
AuthType=auth/munge
AuthInfo=socket=$FOLDER/munge/socket
DbdHost=localhost
SlurmUser=root
PidFile=$FOLDER/slurmdbd.pid
LogFile=$FOLDER/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=33061
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_accounting
EOF
    chmod 600 "$FOLDER/slurmdbd.conf"
}

start_munge() {
    running "$FOLDER/munge/pid" && return
    install -d -o munge -g munge -m 755 "$FOLDER/munge"
    [ -e "$FOLDER/munge/key" ] || dd if=/dev/urandom of="$FOLDER/munge/key" bs=1 count=1024 status=none
    chown munge:munge "$FOLDER/munge/key"
    chmod 400 "$FOLDER/munge/key"
    runuser -u munge -- munged --key-file="$FOLDER/munge/key" --socket="$FOLDER/munge/socket" --pid-file="$FOLDER/munge/pid" \
        --log-file="$FOLDER/munge/munged.log" --seed-file="$FOLDER/munge/seed"
}

start_database() {
    running "$FOLDER/mysql/pid" && return
    if [ ! -d "$FOLDER/mysql/mysql" ]; then
        install -d -o mysql -g mysql "$FOLDER/mysql"
        mariadb-install-db --user=mysql --datadir="$FOLDER/mysql" --skip-test-db >"$FOLDER/mysql.log" 2>&1
    fi
    setsid mariadbd --no-defaults --user=mysql --datadir="$FOLDER/mysql" --socket="$FOLDER/mysql/socket" --pid-file="$FOLDER/mysql/pid" \
        --bind-address=127.0.0.1 --port=33061 --innodb-flush-log-at-trx-commit=0 </dev/null >>"$FOLDER/mysql.log" 2>&1 &
    wait_for 60 mariadbd mariadb --no-defaults --socket="$FOLDER/mysql/socket" -e "select 1"
    mariadb --no-defaults --socket="$FOLDER/mysql/socket" <<EOF
create database if not exists slurm_accounting;
create user if not exists slurm@'127.0.0.1' identified by 'slurm';
create user if not exists slurm@localhost identified by 'slurm';
grant all on slurm_accounting.* to slurm@'127.0.0.1';
grant all on slurm_accounting.* to slurm@localhost;
EOF
}

up() {
    [ "$(id -u)" = 0 ] || die "must run as root"
    command -v slurmctld slurmd slurmdbd munged mariadbd >/dev/null || die "SLURM is not installed; as root: $0 install"
    mkdir -p "$FOLDER"/{state,spool}
    chmod 755 "$FOLDER"
    write_settings
    start_munge
    start_database
    running "$FOLDER/slurmdbd.pid" || SLURM_CONF=$FOLDER/slurm.conf slurmdbd
    wait_for 60 slurmdbd sacctmgr --noheader list cluster
    sacctmgr --immediate --quiet add cluster altprop >/dev/null 2>&1 || true # is there already
    running "$FOLDER/slurmctld.pid" || slurmctld -f "$SLURM_CONF"
    wait_for 60 slurmctld scontrol ping
    running "$FOLDER/slurmd.pid" || slurmd -f "$SLURM_CONF" -N localhost
    wait_for 60 "the node" ready
    echo "SLURM is up: export SLURM_CONF=$SLURM_CONF"
}

ready() { sinfo --noheader --format=%T | grep -Eq 'idle|mixed|allocated'; }

down() {
    local name
    if running "$FOLDER/slurmctld.pid"; then
        scancel --full --signal=KILL --state=RUNNING 2>/dev/null || true
        scancel --state=PENDING 2>/dev/null || true
    fi
    for name in slurmd slurmctld slurmdbd munge/pid mysql/pid; do
        local pid=$FOLDER/$name
        [ "$name" = "${name%/pid}" ] && pid=$pid.pid
        running "$pid" && kill "$(cat "$pid")"
    done
    for name in slurmd.pid slurmctld.pid slurmdbd.pid munge/pid mysql/pid; do
        for _ in $(seq 100); do
            running "$FOLDER/$name" || break
            sleep 0.1
        done
    done
    rm -rf "$FOLDER"
}

case ${1:-} in
install) install_packages ;;
up) up ;;
down) down ;;
status) running "$FOLDER/slurmctld.pid" && sinfo && squeue ;;
*) die "usage: $0 install | up | down | status" ;;
esac
