#!/usr/bin/env bash
# Names each change of the OpenAPI document that breaks clients of the released one, and
# exits 1 unless docs/api/breaking.md records it. Another document may be given in its place.
set -euo pipefail
revision=$(realpath "${1:-$(dirname "$0")/../internal/api/openapi.yaml}")
cd "$(dirname "$0")/../tools"
code=0
go tool oasdiff breaking ../docs/api/released.yaml "$revision" --flatten-allof --format singleline --color never \
  --severity-levels openapi/oasdiff-levels.txt --deprecation-days-stable 180 \
  --err-ignore "${RECORDED:-../docs/api/breaking.md}" --warn-ignore "${RECORDED:-../docs/api/breaking.md}" --fail-on WARN || code=$?
if [[ $code -eq 1 ]]; then
  echo "This breaks clients of the released API. Find another way, or record it: docs/api/evolution.md says how." >&2
fi
exit "$code"
