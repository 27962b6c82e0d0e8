#!/bin/bash
# Runs the fuzz targets of `fuzz/`, each for some seconds, two or more at a time.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]        60 seconds, all targets
#
# Needs no nightly compiler and no cargo-fuzz: libFuzzer, and the coverage that leads it, are built by
# the stable compiler; overflows and debug assertions count as faults. Last line: what was run; exit
# status 1 if a target failed. What made it fail is in `fuzz/artifacts`, what it learned in
# `fuzz/corpus`; the next run goes on from there. A target that does not end in time is ended.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift $(($# > 0 ? 1 : 0))
triple=$(rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-target}/fuzz
programs=$built/$triple/debug

# "TARGET CRATE" of each target.
targets=$(awk '/^name = /{gsub(/"/, ""); name=$3} /^required-features/{gsub(/[]["]/, ""); print name, $3}' \
    fuzz/Cargo.toml)
if [ $# != 0 ]; then
    for target in "$@"; do
        grep -q "^$target " <<<"$targets" || { echo "fuzz: there is no target $target" >&2; exit 2; }
    done
    targets=$(grep -E "^($(IFS='|'; echo "$*")) " <<<"$targets")
fi

build() {
    local coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
    coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
    coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table"
    coverage+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
    local crates bins
    crates=$(cut -d' ' -f2 <<<"$targets" | sort -u | paste -sd,)
    mapfile -t bins < <(cut -d' ' -f1 <<<"$targets" | sed 's/^/--bin=/')
    # The product's own versions of everything that it has, whatever was built here before.
    cp Cargo.lock fuzz/Cargo.lock
    # With a target triple the flags are not those of build scripts and macros.
    RUSTFLAGS="$coverage -Ccodegen-units=1" cargo build --quiet \
        --manifest-path fuzz/Cargo.toml --target "$triple" --target-dir "$built" \
        --no-default-features --features "$crates" "${bins[@]}"
}

# Something real to begin with, where the tree or a tool has it.
seeds() {
    local to=fuzz/corpus/$1
    mkdir -p "$to"
    case $1 in
    event_log) cp crates/attest/vectors/*/{ovmf-guest,bios}.bin "$to" 2>/dev/null || true ;;
    envelope) signed >"$to/made" ;;
    guest_proof) ask >"$to/ask"; evidence >"$to/evidence" ;;
    quote) hex "$quote" >"$to/quote"; hex "$signature" >"$to/signature"; hex "$public" >"$to/public" ;;
    ima_log) cp crates/attest/vectors/*/{ima-boot-aggregate,ima}.bin "$to" 2>/dev/null || true ;;
    # Rows of 8 bytes, each a place in the volume and what is written there.
    vault_image) hex "$half$half$half$half" >"$to/made" ;;
    vault_start) for f in vectors/vault/*.slots; do
        # The length, then the slot's number before each slot.
        tail -c +9 "$f" | head -c 4096 >"$to/$(basename "$f")"
    done ;;
    luks1_header | luks2_header)
        [ -e "$to/made" ] || { command -v cryptsetup >/dev/null && luks "${1%_header}" "$to/made"; } ;;
    certificate | path)
        [ -e "$to/made" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
            -keyout /dev/null -subj /CN=seed -days 30000 -outform DER -out "$to/made" 2>/dev/null || true ;;
    nbd) printf '\0\0\0\3IHAVEOPT\0\0\0\10\0\0\0\0IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0IHAVEOPT\0\0\0\2\0\0\0\0' >"$to/made" ;;
    qcow2_image)
        [ -e "$to/made" ] || { command -v qemu-img >/dev/null && qcow2 "$to/made"; } ;;
    xml | soap | xkms_message) envelope >"$to/made" ;;
    esac
}

hex() {
    printf '%b' "$(sed 's/../\\x&/g' <<<"$1")"
}

base64_of() {
    hex "$1" | base64 -w0
}

# What a TPM gives: a quote of PCRs 0 to 23, a signature of it, and the public area of an ECC signing key.
half=$(printf '%02x' {1..32})
quote=ff54434780180022000b${half}0020${half}00000000000010000000000100000002010000000000000000
quote+=00000001000b03ffffff0020$half
signature=0018000b0020${half}0020$half
public=0023000b00050072000000100018000b000300100020${half}0020$half

signed() {
    printf '{"payloadType":"application/vnd.vouchsafe.grant+json","payload":"e30=",'
    printf '"signatures":[{"keyid":"%s","sig":"%s"}]}' "$half" "$(base64_of "$half$half")"
}

ask() {
    printf '{"ek_certificate":"MAA=","ek":"%s","ak":"%s"}' "$(base64_of "$public")" "$(base64_of "$public")"
}

evidence() {
    printf '{"nonce":"%s","channel":"sha256:%s","secret":"AAAA",' "$half" "$half"
    printf '"quote":"%s","signature":"%s",' "$(base64_of "$quote")" "$(base64_of "$signature")"
    printf '"ima_value":"sha256:%s","ima_log":""}' "$half"
}

qcow2() {
    local image
    image=$(mktemp)
    head -c 3000 scripts/fuzz.sh >"$image"
    truncate -s 8192 "$image"
    qemu-img convert -f raw -O qcow2 -c -o cluster_size=512 "$image" "$1"
    rm -f "$image"
}

luks() {
    local image
    image=$(mktemp)
    truncate -s 20M "$image"
    echo -n seed | cryptsetup luksFormat --batch-mode --type "$1" --pbkdf pbkdf2 \
        --pbkdf-force-iterations 1000 "$image" --key-file - && head -c 32768 "$image" >"$2"
    rm -f "$image"
}

envelope() {
    cat <<'XML'
<S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"><S:Body><LocateRequest
xmlns="http://www.w3.org/2002/03/xkms#" Id="I1" Service="http://a/xkms"
><RespondWith>http://www.w3.org/2002/03/xkms#X509Cert</RespondWith><QueryKeyBinding><KeyUsage
>http://www.w3.org/2002/03/xkms#Signature</KeyUsage><UseKeyWith Application="urn:ietf:rfc:2633"
Identifier="a@b"/></QueryKeyBinding></LocateRequest></S:Body></S:Envelope>
XML
}

# One target; its line of the table.
run() {
    local target=$1 log="$built/$1.log" result=passed
    seeds "$target"
    mkdir -p fuzz/artifacts
    # What it learned before is run first, and not counted as its time.
    timeout --kill-after=10 $((seconds * 2 + 60)) \
        "$programs/$target" -max_total_time="$seconds" -max_len=65536 -timeout=30 -rss_limit_mb=2048 \
        -print_final_stats=1 -verbosity=1 -artifact_prefix="fuzz/artifacts/$target-" \
        "fuzz/corpus/$target" >"$log" 2>&1 || result=FAILED
    local executions coverage
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -1 | cut -c6-)
    printf '%-16s %12s executions %7s edges  %s\n' "$target" "${executions:-0}" "${coverage:-0}" "$result"
    if [ $result = FAILED ]; then
        grep -hE -A3 'panicked|ERROR|SUMMARY' "$log" | head -12 | sed 's/^/    /'
    fi
}

echo "fuzz: building (the first time, several minutes)" >&2
build
export -f run seeds luks qcow2 envelope hex base64_of signed ask evidence
export seconds built programs half quote signature public
table=$built/table
cut -d' ' -f1 <<<"$targets" | xargs -P "$(nproc)" -I{} bash -c 'run {}' | tee "$table"
awk '/ executions /{n++; sum += $2; failed += $NF == "FAILED"}
     END {printf "fuzz: %d targets, %d executions, %d failed\n", n, sum, failed; exit failed > 0}' "$table"
