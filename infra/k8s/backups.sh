#!/usr/bin/env bash
# Backups of the database in the cluster that KUBECONFIG names: `backups.sh now` makes one, `backups.sh list` says which
# there are, `backups.sh restore FILE` puts one back (FILE may be `latest`). CONFIRM=yes asks nothing.
set -euo pipefail

readonly NAMESPACE=huisheng
readonly WRITERS=(web worker labeller beat)
readonly TIMEOUT=${TIMEOUT:-3600} # seconds

say() { printf '[backups] %s\n' "$*"; }
fail() {
    printf '[backups] %s\n' "$@" >&2
    exit 1
}
kube() { "${KUBECTL:-kubectl}" --namespace "$NAMESPACE" "$@"; }

make_job() { # NAME CRONJOB FILE
    # The CronJob says `not-said` where the name of the dump belongs.
    kube create job "$1" --from="cronjob/$2" --dry-run=client -o json |
        sed "s/\"not-said\"/\"$3\"/" | kube create -f - >/dev/null
}

wait_for_job() { # NAME; its log is printed when it has ended
    local conditions deadline=$((SECONDS + TIMEOUT))
    while true; do
        conditions=$(kube get job "$1" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}')
        case $conditions in
        *Complete*)
            kube logs "job/$1" --all-containers
            return 0
            ;;
        *Failed*)
            kube logs "job/$1" --all-containers || true
            return 1
            ;;
        esac
        [ $SECONDS -lt $deadline ] || fail "job $1 has not ended after $TIMEOUT s: kubectl -n $NAMESPACE describe job $1"
        sleep 2
    done
}

exit_status() { # of the first container of a failed job's pod, which is the one that restores
    kube get pods --selector "job-name=$1" -o 'jsonpath={.items[0].status.initContainerStatuses[0].state.terminated.exitCode}'
}

confirm() {
    [ "${CONFIRM:-}" != yes ] || return 0
    [ -t 0 ] || fail "This replaces the database. Say CONFIRM=yes, as nobody can be asked here."
    local answer
    read -r -p "Replace the database in $NAMESPACE of $("${KUBECTL:-kubectl}" config current-context) by $1? Type yes: " answer
    [ "$answer" = yes ] || fail "Nothing was changed."
}

stop_writers() { # while a Deployment has no replicas its HPA leaves it alone
    local name
    for name in "${WRITERS[@]}"; do
        replicas[$name]=$(kube get deployment "$name" -o 'jsonpath={.spec.replicas}')
        kube scale deployment "$name" --replicas 0 >/dev/null
    done
    say "waiting until ${WRITERS[*]} have ended; readers see an error page meanwhile"
    local selector deadline=$((SECONDS + TIMEOUT))
    selector="app.kubernetes.io/name in ($(IFS=,; echo "${WRITERS[*]}"))"
    # Not `kubectl wait`: to that it is an error that none is left. An evicted pod writes nothing, and stays for long.
    while [ -n "$(kube get pods --selector "$selector" --output name \
        --field-selector status.phase!=Failed,status.phase!=Succeeded)" ]; do
        [ $SECONDS -lt $deadline ] || fail "after $TIMEOUT s they have not: kubectl -n $NAMESPACE get pods -l '$selector'"
        sleep 2
    done
}

start_writers() {
    local name
    for name in "${WRITERS[@]}"; do
        # One that had none before (a restore that was cut short) gets one; the HPA takes it from there.
        kube scale deployment "$name" --replicas "$((replicas[$name] > 0 ? replicas[$name] : 1))" >/dev/null
    done
    say "started again: ${WRITERS[*]}"
}

restore() {
    local file=$1 job
    job=restore-$(date -u +%Y%m%d-%H%M%S)
    confirm "$file"
    declare -A replicas
    stop_writers
    make_job "$job" restore "$file"
    if wait_for_job "$job"; then
        start_writers
        return
    fi
    if [ "$(exit_status "$job")" = 2 ]; then
        start_writers
        fail "Nothing was restored; the database is as it was."
    fi
    fail "The restore failed half way, so what writes to the database stays stopped (see the log above)." \
        "Mend what it says and run this again."
}

case ${1:-} in
now)
    job=backup-$(date -u +%Y%m%d-%H%M%S)
    make_job "$job" backup ""
    wait_for_job "$job" || fail "The backup failed."
    ;;
list)
    job=backups-$(date -u +%Y%m%d-%H%M%S)
    make_job "$job" restore not-said
    wait_for_job "$job" || true # a restore that is told no file says which there are
    kube delete job "$job" --wait=false >/dev/null
    ;;
restore)
    [[ ${2:-} =~ ^[A-Za-z0-9.-]+$ ]] || fail "Which backup? FILE=huisheng-….sql.gz, or FILE=latest. make backups lists them."
    restore "$2"
    ;;
*)
    echo "usage: infra/k8s/backups.sh now | list | restore FILE" >&2
    exit 64
    ;;
esac
