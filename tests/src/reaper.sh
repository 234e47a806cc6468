# Takes away what a lab has made. Standard input names it, one thing a line; its end means that the
# lab is over, whether its process returned, panicked or was killed.
trap '' INT TERM HUP QUIT
pids='' netns='' mounts='' dirs=''
while read -r kind name more; do
    case $kind in
    pid) pids="$pids $name:$more" ;;
    netns) netns="$netns $name" ;;
    mount) mounts="$name $mounts" ;;
    dir) dirs="$dirs $name" ;;
    esac
done

# A process id may have passed to another process; the pair of id and start time never does.
alive() {
    stat=$(cat "/proc/${1%:*}/stat" 2>/dev/null) || return 1
    # The command's name is in parentheses and may contain anything; after it come the state, and
    # as the twentieth the start time.
    started=${1#*:}
    pid=${1%:*}
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    [ "${20}" = "$started" ] || return 1
    # One that nobody has waited for is a zombie, and so is its first thread while others end: what
    # they have open is open until the last of them has ended.
    [ "$1" != Z ] || [ "$(ls "/proc/$pid/task" 2>/dev/null | wc -l)" -gt 1 ]
}

for p in $pids; do
    alive "$p" && kill -9 "${p%:*}"
done
for p in $pids; do
    # Far longer than it takes to end, also on a machine under load.
    rounds=1000
    while [ $rounds -gt 0 ] && alive "$p"; do
        sleep 0.02
        rounds=$((rounds - 1))
    done
    [ $rounds -gt 0 ] || echo "process ${p%:*} does not end" >&2
done
left=0
for n in $netns; do
    [ ! -e "/run/netns/$n" ] || ip netns del "$n" || left=1
done
for m in $mounts; do
    ! mountpoint -q "$m" || umount "$m" || left=1
done
for d in $dirs; do
    rm -rf --one-file-system "$d" || left=1
done
exit $left
