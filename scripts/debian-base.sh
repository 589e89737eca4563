#!/bin/sh
# Makes DIR/rootfs-ARCH.tar for each ARCH (Debian's names), for examples/debian/base:
# Debian packages extracted, not configured, so no emulator is needed for it.
# Usage: debian-base.sh DIR ARCH...        Needs mmdebstrap.
set -eu
dir=$1
shift
for arch; do
	[ -e "$dir/rootfs-$arch.tar" ] && continue
	mmdebstrap --quiet --variant=extract --architectures="$arch" --include='?essential' --include=apt,usr-is-merged \
		--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --skip=cleanup/apt,check/qemu --format=tar bookworm "$dir/rootfs-$arch.tar.part" </dev/null
	mv "$dir/rootfs-$arch.tar.part" "$dir/rootfs-$arch.tar"
done
