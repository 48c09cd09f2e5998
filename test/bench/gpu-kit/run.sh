#!/usr/bin/env bash
# Unpacks the pieces beside this file and measures on the GPU of this machine. No network, no Node and no root needed; Python
# only to find NVIDIA's libraries where pip put them.
#
#     bash run.sh OUT [--provider cuda|cpu] [--quick] [--skip verify,speed,ffn]
#
# OUT gets gpu.json, written again after every step, and one log per step. KIT_FOLDER: where it is unpacked (beside this file).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 1 ] || { sed -n '2,7p' "${BASH_SOURCE[0]}"; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift

missing=$(while read -r _ piece; do [ -f "$here/$piece" ] || echo "$piece"; done <"$here/pieces.sha256")
if [ -n "$missing" ]; then
  echo "These pieces are not here yet: $(echo $missing). Put them beside run.sh and call it again." >&2
  exit 3
fi
(cd "$here" && sha256sum --check --quiet pieces.sha256)

kit=${KIT_FOLDER:-$here/unpacked}
if [ ! -f "$kit/.complete" ]; then
  mkdir -p "$kit"
  (cd "$here" && cut -d ' ' -f 3 pieces.sha256 | xargs cat) | tar -xz -C "$kit"
  touch "$kit/.complete"
fi

# NVIDIA's libraries: of pip's packages (torch brings them), then of the toolkit.
found=$(python3 - <<'PYTHON' 2>/dev/null || true
import glob, sys
print(":".join(sorted(p for root in sys.path for p in glob.glob(f"{root}/nvidia/*/lib") + glob.glob(f"{root}/nvidia/*/*/lib"))))
PYTHON
)
for folder in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/x86_64-linux/lib /usr/local/nvidia/lib64; do
  [ -d "$folder" ] && found="${found:+$found:}$folder"
done
export LD_LIBRARY_PATH="${found}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$kit/bin/node" "$kit/dist/test/bench/gpu-kit/measure.js" --out "$out" "$@"
