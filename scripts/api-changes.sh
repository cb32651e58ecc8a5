#!/usr/bin/env bash
# Names each change of the API that breaks somebody, and exits 1 unless docs/api/breaking.md records it: within a
# version, against its document as it was last released; between two, from the older one's document to the newer's.
# With two documents it compares those alone.
set -euo pipefail
root=$(realpath "$(dirname "$0")/..")
recorded=$(realpath "${RECORDED:-$root/docs/api/breaking.md}")
failed=0

# breaks BASE REVISION
breaks() {
  local code=0
  (cd "$root/tools" && go tool oasdiff breaking "$1" "$2" --flatten-allof --format singleline --color never \
    --severity-levels openapi/oasdiff-levels.txt --deprecation-days-stable 180 \
    --err-ignore "$recorded" --warn-ignore "$recorded" --fail-on WARN) || code=$?
  [[ $code -le 1 ]] || exit "$code"
  [[ $code -eq 0 ]] || failed=1
}

version_of() { sed -n "s/^  version: '\(.*\)'$/\1/p" "$1"; }

if [[ $# -eq 2 ]]; then
  breaks "$(realpath "$1")" "$(realpath "$2")"
else
  documents=("$root"/internal/api/versions/????-??-??.yaml "$root/internal/api/openapi.yaml") # the oldest first
  older=$(mktemp --suffix .yaml)
  trap 'rm -f "$older"' EXIT
  before=
  for document in "${documents[@]}"; do
    version=$(version_of "$document")
    breaks "$root/docs/api/released/$version.yaml" "$document"
    if [[ -n $before ]]; then
      # That each takes its own date in Payments-Version is what a version is.
      sed "s/enum: \['$(version_of "$before")'\]/enum: ['$version']/" "$before" >"$older"
      breaks "$older" "$document"
    fi
    before=$document
  done
fi
if [[ $failed -ne 0 ]]; then
  echo "This breaks clients of a released version. Find another way, or make a version: docs/api/evolution.md says how." >&2
fi
exit "$failed"
