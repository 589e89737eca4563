#!/usr/bin/env bash
# test.sh: everything that decides whether the tree is good, as `make test` runs it. Stages go on after a failure, so
# that one run tells all; the last lines are what failed and how long each stage took.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

times=()
failed=()
left=()
stage() {
	local name=$1 start=$SECONDS
	shift
	echo "=== $name"
	"$@" || failed+=("$name")
	times+=("$(printf '%4d s  %s' $((SECONDS - start)) "$name")")
}

echo "=== packages of the system"
scripts/deps.sh test
deps=$?
case $deps in
0) ;;
3) left+=("the program beside its peers: packages are missing, see above") ;;
*) failed+=("packages of the system") ;;
esac
stage "format, vet, staticcheck" make --no-print-directory static
stage "compile for other systems" make --no-print-directory cross
stage "tests as $(id -un)" make --no-print-directory unit
if [ $deps != 3 ]; then
	stage "the program beside its peers" make --no-print-directory e2e
	if [ "$(id -u)" = 0 ]; then
		stage "builds on BuildKit nodes" make --no-print-directory nodes-short
	else
		left+=("builds on BuildKit nodes: its daemons need root")
	fi
fi
stage "tests as ordinary users" make --no-print-directory rootless
if command -v gcc >/dev/null; then
	stage "race detector" make --no-print-directory race
else
	left+=("race detector: it needs a C compiler (gcc, libc6-dev)")
fi
stage "deploy/kubernetes" make --no-print-directory kubernetes
stage "fuzzing" make --no-print-directory fuzz-short
stage "reproducibility" make --no-print-directory repro

printf '%s\n' "${times[@]}"
[ ${#left[@]} = 0 ] || printf 'LEFT OUT: %s\n' "${left[@]}"
if [ ${#failed[@]} -gt 0 ]; then
	printf 'FAILED: %s\n' "${failed[@]}"
	exit 1
fi
echo "ok: all tests passed in $SECONDS s"
