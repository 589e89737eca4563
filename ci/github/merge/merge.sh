#!/usr/bin/env bash
# The merge step of action.yml, which gives it its inputs as $INPUT_NAME. manifestctl itself writes the outputs.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../inputs.sh"

value INPUT_STAGE --stage
csv INPUT_EXPECT --expect
csv INPUT_TAGS --tag
lines INPUT_ANNOTATIONS --annotation
value INPUT_WAIT --wait
manifestctl merge "${args[@]}"

if [ "${INPUT_CLEAN-}" = true ]; then
	args=()
	csv INPUT_TAGS ''
	first=${args[0]#=}
	repo=${first%%@*}
	case ${repo##*/} in *:*) repo=${repo%:*} ;; esac
	manifestctl stage rm --stage "$INPUT_STAGE" "$repo"
fi
