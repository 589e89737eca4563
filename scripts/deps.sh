#!/usr/bin/env bash
# deps.sh SET: installs the Debian packages of SET (test or demo) that are missing when it runs as root on a system
# with apt; otherwise it names them and ends with 3: what needs them cannot run.
# Recommended packages are never installed: qemu-user-static recommends one that registers handlers on the host.
set -euo pipefail

case "${1-}" in
demo) packages=(qemu-user-static ca-certificates) ;;
test) packages=(qemu-user-static uidmap busybox-static skopeo podman buildah umoci docker-registry runc mmdebstrap
	apache2-utils bubblewrap docker.io containerd rpm xz-utils bzip2 zstd git strace chromium ca-certificates gcc libc6-dev
	openssh-client openssh-server) ;;
*) echo "usage: deps.sh test|demo" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
	echo "deps: this is no Debian system; needed are the equivalents of: ${packages[*]}" >&2
	exit 3
fi
missing=()
for p in "${packages[@]}"; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

command="apt-get install -y --no-install-recommends ${missing[*]}"
wait=(-o DPkg::Lock::Timeout=600) # for whoever else installs something, as machines do when they begin
if [ "$(id -u)" != 0 ]; then
	printf 'deps: missing: %s\ndeps: as root: apt-get update && %s\n' "${missing[*]}" "$command" >&2
	exit 3
fi
echo "deps: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
if [ ! -e /usr/sbin/policy-rc.d ]; then # none of them is started: tests start their own
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get update -q >&2
$command "${wait[@]}" >&2
