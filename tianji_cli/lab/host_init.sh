#!/bin/sh
# First process of a lab host, in fresh namespaces: builds the host's file tree, then becomes sshd.
#   host_init.sh NAME DISK SSHD [SHARED_DIR]...
# DISK holds `upper` (the host's own files; survives a restart), `work` and `root`.
set -eu
name=$1 disk=$2 sshd=$3
shift 3
hostname "$name"
mount --make-rprivate /
cd "$disk"
mount -t overlay tianji-lab -o lowerdir=/,upperdir=upper,workdir=work root
root=$disk/root
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mkdir -p "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount --bind "$root/dev/pts/ptmx" "$root/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/sshd" "$root/run/lock"
for dir in "$@"; do
  mkdir -p "$root$dir"
  mount --bind "$dir" "$root$dir"
  mount -o remount,bind,ro "$root$dir"
done
# pivot_root rather than chroot: a process that enters the namespaces later sees this tree and /proc.
mkdir -p "$root/.old"
cd "$root"
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
exec "$sshd" -D -e -f /etc/tianji-lab/sshd_config
