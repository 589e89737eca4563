#!/bin/sh
# Runs the tests of limits by cgroups in a kernel of its own: user-mode Linux 6.1 from Debian's package, as a process of this
# user, with this machine's files read-only. Few machines of CI delegate a cgroup. It is an old kernel on purpose as well: overlays are
# mounted there as before 6.5.
# Usage: cgroup.sh        Needs Go, apt-get, dpkg, mkfs.ext4, busybox.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/manifestctl-cgroup-XXXXXX")
trap 'rm -rf "$dir"' EXIT INT TERM
cd "$dir"
apt-get -qq -o APT::Sandbox::User=root download user-mode-linux
dpkg -x user-mode-linux_*.deb uml
mkdir probe-$(go env GOARCH)
(cd "$top/pkg/sandbox/testdata/probe" && CGO_ENABLED=0 go build -ldflags='-s -w' -o "$dir/probe-$(go env GOARCH)/probe" .)
(cd "$top" && CGO_ENABLED=0 go test -c -o "$dir/sandbox.test" ./pkg/sandbox)
truncate -s 512M disk.img
mkfs.ext4 -qF disk.img
cat > init <<END
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/mnt
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/pts; mount -t devpts devpts /dev/pts
busybox insmod $dir/uml/usr/lib/uml/modules/*/kernel/fs/overlayfs/overlay.ko
mount -t cgroup2 cgroup /sys/fs/cgroup; mount -t ext4 /dev/ubda /mnt; mount -t tmpfs tmpfs /run; ip link set lo up
echo "+memory +pids +cpu" > /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/scope /mnt/tmp
cd $top/pkg/sandbox
TMPDIR=/mnt/tmp MANIFESTCTL_CGROUP=1 MANIFESTCTL_TEST_VARIANT=root MANIFESTCTL_TEST_SHARED=$dir \
	sh -c 'echo \$\$ > /sys/fs/cgroup/scope/cgroup.procs; exec $dir/sandbox.test -test.v -test.timeout 300s -test.run "TestE05Cgroup|TestRun$"'
echo "exit code \$?"
echo o > /proc/sysrq-trigger
sleep 60
END
chmod +x init
timeout 900 uml/usr/bin/linux.uml mem=768M rootfstype=hostfs rootflags=/ ro ubda="$dir/disk.img" init="$dir/init" con=null con0=null,fd:1 quiet < /dev/null > log 2>&1 || true
tr -d '\r' < log | grep -v '^overlayfs:\|^Memory cgroup'
grep -q '^exit code 0' log
