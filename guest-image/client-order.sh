#!/bin/bash
# Writes guest-image/client.ld anew: what of the guest's client runs, for the linker to put side by side.
# Apart from each other these functions bring nearly all of the program into memory, because the kernel
# maps the pages around each that is touched. A function that is not in the list only lies elsewhere.
#
#   client-order.sh MAP PROFILE...      MAP: of the linker (-Wl,-Map=FILE), for a client with symbols;
#                                       PROFILE: of that client, by
#                                       valgrind --demangle=no --tool=callgrind --compress-strings=no
set -euo pipefail

map=$1
shift
out=$(dirname "$0")/client.ld
{
    echo "/* What the guest's client runs, by client-order.sh. */"
    echo "SECTIONS { .text.used : {"
    # A profile names functions; the map says in which section of which file each is. Of names, what
    # depends on the compiler's version is left open.
    awk -v profiles=$# '
        FNR == 1 { file++ }
        file <= profiles {
            if (sub(/^c?fn=/, "")) { sub(/\047[0-9]+$/, ""); ran[$0] = 1 }
            next
        }
        match($0, /[^ ]+:\(\.text[^)]*\)$/) {
            section = name = substr($0, RSTART, RLENGTH)
            sub(/^.*:\(\.text\.(unlikely\.)?/, "", name)
            sub(/\)$/, "", name)
            if (name in ran) { print section; section = "" }
            next
        }
        section != "" && $5 in ran { print section; section = "" }
    ' "$@" "$map" | sed -E '
        s/^.*:\((\.text\..*_ZN.*)17h[0-9a-f]{16}E(\.(llvm\.)?[0-9]+)?\)$/*(\117h*)/; t
        s/^.*:\((\.text\.(unlikely\.)?_R.*)\)$/*(\1)/; T object
        s/Cs[0-9A-Za-z]+_/Cs*_/g; s/(\.llvm)?\.[0-9]+\)$/.*)/; t
        :object
        s/^.*\/([^\/]+\.a)\(([^)]+)\):(\(.*\))$/*\1:\2\3/; t
        s/^.*\((.*-)?([^)]+)\):(\(.*\))$/*\2\3/; t
        s/^.*:(\(\.text\..*\))$/*\1/; t
        d' | LC_ALL=C sort -u | sed 's/^/    /'
    # What newer processors run instead: the profiler has no AVX-512.
    printf '    %s\n' '*crt1.o(.text)' '*crtbeginT.o(.text)' \
        '*curve25519_x25519.o(.text)' '*curve25519_x25519base.o(.text)' \
        '*libc.a:*-evex*.o(.text.evex)' '*libc.a:mem*-avx512-*.o(.text.evex512)' '*libc.a:strstr-avx512.o(.text)'
    echo "} } INSERT BEFORE .text;"
    cat <<'END'
/* Tables of algorithms that it does not use, or not on most processors; and as much room as lets what runs
   end where 64 KiB do, 0x1080 bytes of the next segment's beginning with it: the kernel maps so much around
   each page that is touched, as far as the segment goes, and what comes next does not run. */
END
    echo "SECTIONS { .rodata.unused : {"
    printf '    %s\n' '*edwards25519_scalarmulbase*.o(.rodata)' '*curve25519_x25519base_alt.o(.rodata)' \
        '*libc.a:fpioconst.o(.rodata)' '*(.rodata.*mldsa*)' '*(.rodata.*p521*)' '*(.rodata.*p384*)' \
        '. = . + ((0x10000 - ((ABSOLUTE(.) + 0x1080 + SIZEOF(.text.used)) & 0xffff)) & 0xffff);'
    echo "} } INSERT AFTER .eh_frame;"
} >"$out"
