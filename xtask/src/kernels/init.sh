#!/bin/busybox sh
# The first and only process of a guest: runs the tests, tells of them on the console, and turns the
# machine off. Lines for the workshop begin with "guard-kernels: ".
/bin/busybox --install -s /bin
export PATH=/guest:/bin HOME=/tmp RUST_BACKTRACE=0 GUARD_BIN_DIR=/guest
mkdir -p /proc /sys /dev /run /tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t bpf bpf /sys/fs/bpf

# Before 5.11 maps count as locked memory.
ulimit -l unlimited

say() { echo "guard-kernels: $*"; }
say kernel "$(uname -r)"
for module in /modules/*.ko; do
    insmod "$module" || say broken "$module"
done
# The shell prefers a busybox's own `ip` to the real one.
/guest/ip link set lo up

# Runs one test executable.
run() {
    name=$1
    shift
    say begin "$name"
    "$@" 2>&1
    say end "$name" $?
}

# What the agent says of a port of a real bridge.
mkdir /tmp/guard
cat >/tmp/guard/agent.toml <<'CONFIG'
state_dir = "/tmp/guard/state"
socket = "/tmp/guard/guard.sock"
bpffs = "/sys/fs/bpf/guard"
[[bridge]]
name = "rt0"
CONFIG
/guest/ip link add rt0 type bridge
/guest/ip link set rt0 up
/guest/ip link add port0 type veth peer name far0
/guest/ip link set port0 master rt0 up
/guest/guard-agent run --config /tmp/guard/agent.toml 2>/tmp/guard/log &
agent=$!
tries=100
ports=
until case $ports in *'"covered":true'*) true ;; *) false ;; esac do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { cat /tmp/guard/log; break; }
    sleep 0.1
    [ -S /tmp/guard/guard.sock ] || continue
    ports=$(/guest/guardctl --socket /tmp/guard/guard.sock -o json ports 2>&1 | tr -d ' \n')
done
say ports "$ports"
kill $agent
wait $agent
/guest/guard-agent detach --config /tmp/guard/agent.toml
/guest/ip link delete rt0
/guest/ip link delete port0

if [ -f /frames ]; then
    GUARD_DIFFERENTIAL_FRAMES=$(cat /frames)
    export GUARD_DIFFERENTIAL_FRAMES
fi
run program /guest/program --test-threads=1
if [ -f /scenarios ]; then
    # shellcheck disable=SC2046
    run scenarios /guest/scenarios --test-threads=1 $(cat /scenarios)
fi
poweroff -f
