#!/bin/busybox sh
# PID 1 of the VM: cgroup2 alone, this checkout at its own path, one command; its output goes to the second serial line.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t securityfs securityfs /sys/kernel/security
mount -o remount,rw /
ip link set lo up
hostname hafen-vm
modprobe loop
modprobe overlay
modprobe quota_v2
mkdir -p /source
mount -t ext4 /dev/vdb /source
. /source/job
for name in src tests pyproject.toml; do
  if [ -d "/source/$name" ]; then mkdir -p "$CHECKOUT/$name"; else : >"$CHECKOUT/$name"; fi
  mount --bind "/source/$name" "$CHECKOUT/$name"
done
cd "$CHECKOUT"
export NO_COLOR=1 PYTHONDONTWRITEBYTECODE=1 TMPDIR=/var/tmp HAFEN_IN_VM=1
sh -c "$COMMAND" >/dev/ttyS1 2>&1 </dev/null
echo "exit status $?" >/dev/ttyS1
sync
# The serial lines drain before the machine stops.
poweroff -f
