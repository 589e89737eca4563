#!/usr/bin/env bash
# Puts manifestctl into the job's $PATH: the one that is there, else one built of the commit that the action is from.
set -euo pipefail
if command -v manifestctl >/dev/null; then
	manifestctl version
	exit
fi
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${RUNNER_TEMP:-${TMPDIR:-/tmp}}/manifestctl-bin
mkdir -p "$bin"
if ! command -v go >/dev/null; then
	echo "::error::there is neither manifestctl nor Go on this runner: install one of them in an earlier step"
	exit 1
fi
(cd "$source" && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o "$bin/manifestctl" ./cmd/manifestctl)
echo "$bin" >>"$GITHUB_PATH"
"$bin/manifestctl" version
