#!/usr/bin/env bash
# rootless.sh PACKAGE...: compiles the packages' tests and runs them as two ordinary users: one with subuid ranges, one
# without. Root makes the users when they are missing; the checkout and the Go caches stay out of their reach, so the
# test programs and the tree are copied to a directory of theirs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "$(id -u)" != 0 ]; then
	echo "rootless: not root, so all tests ran as an ordinary user already" >&2
	exit 0
fi
go=${GO-go}
module=$("$go" list -m)
work=$(mktemp -d "${TMPDIR:-/tmp}/manifestctl-rootless.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

mkdir "$work/tree"
git ls-files -z --cached --others --exclude-standard | tar --null --no-recursion --ignore-failed-read -T - -cf - | tar -C "$work/tree" -xf -
tests=()
for package in $("$go" list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' "$@"); do
	dir=${package#"$module/"}
	"$go" test -c -o "$work/tree/$dir/rootless.test" "$package"
	tests+=("$dir")
done

failed=()
for kind in ranges single; do
	user=manifestctl-$kind
	id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/sh "$user"
	if [ $kind = single ]; then sed -i "/^$user:/d" /etc/subuid /etc/subgid; fi
	chown -R "$user:" "$work/tree"
	tmp=$work/tmp-$kind
	install -d -o "$user" -g "$user" -m 700 "$tmp"
	for dir in "${tests[@]}"; do
		echo "test $dir as $user"
		start=$SECONDS
		if ! (cd "$work/tree/$dir" && setpriv --reuid "$user" --regid "$user" --init-groups --reset-env \
			env PATH="$PATH" TMPDIR="$tmp" CI="${CI-}" ./rootless.test -test.timeout 20m ${TEST_FLAGS-}) >"$work/log" 2>&1 </dev/null; then
			cat "$work/log"
			failed+=("$dir as $user")
		fi
		echo "  $((SECONDS - start)) s"
	done
done
if [ ${#failed[@]} -gt 0 ]; then
	printf 'rootless: FAILED: %s\n' "${failed[@]}"
	exit 1
fi
