#!/bin/bash
# Builds the guest image a second time, elsewhere and later, and compares every byte.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
first=$root/target/guest-image
"$root/guest-image/build.sh" --out "$first"
second=$(mktemp -d)
trap 'rm -rf "$second"' EXIT
sleep 2
(umask 077 && TZ=Asia/Tokyo "$root/guest-image/build.sh" --out "$second" >/dev/null)
for file in guest.img guest-other.img guest-test.img manifest.json; do
    cmp "$first/$file" "$second/$file"
done
echo "guest-image: the same bytes twice"
