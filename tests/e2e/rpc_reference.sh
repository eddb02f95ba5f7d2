#!/bin/bash
# docs/rpc.md is what the program says of its methods: `varve rpc --reference > docs/rpc.md` makes it anew.
. "$(dirname "$0")/../lib.sh"
"$VARVE" rpc --reference > "$work/rpc.md"
diff -u "$tests/../docs/rpc.md" "$work/rpc.md" > "$work/diff" || {
    head -40 "$work/diff" >&2
    fail "docs/rpc.md is not current: varve rpc --reference > docs/rpc.md"
}
