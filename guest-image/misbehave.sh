# Only in the test variant of the image: what a hostile guest could do, on request by the line
# written to org.vouchsafe.control.0. The good image does not contain this file.

# TPM2_PCR_Extend of one SHA-256 digest (32 ASCII digits) with the empty password, as a format for
# printf that takes the number; in one write, as the driver wants it.
# tag size=65 cc=0x182 pcr | authsize=9 TPM_RS_PW nonce=0 attrs=0 auth=0 | count=1 alg=0x000b
extend_command() {
    printf '\\200\\002\\000\\000\\000\\101\\000\\000\\001\\202\\000\\000\\000\\%03o' "$1"
    printf '%s' '\000\000\000\011\100\000\000\011\000\000\000\000\000\000\000\000\001\000\013%032d'
}

# Extends PCR $1 once and prints the response code.
extend_once() {
    exec 7<>/dev/tpm0
    printf "$(extend_command "$1")" 1 >&7
    dd bs=4096 count=1 2>/dev/null <&7 | xxd -p | cut -c 13-20
    exec 7>&-
}

# Extends PCR 16 $1 times without starting a process for each. Reading one byte of a response lets
# the driver take the next command.
flood() {
    exec 7<>/dev/tpm0
    command=$(extend_command 16)
    n=0
    while [ $n -lt "$1" ]; do
        n=$((n + 1))
        printf "$command" $n >&7
        read -r -n 1 reply <&7
    done
    exec 7>&-
}

# One 4 KiB sector of the data volume: filled, or read for good.
write_sector() {
    dd if=/dev/urandom of=/dev/vdb bs=4096 seek="$1" count=1 conv=notrunc,fsync 2>/dev/null
}
read_sector() { dd if=/dev/vdb of=/dev/null bs=4096 skip="$1" count=1 2>/dev/null; }

misbehave() {
    # shellcheck disable=SC2086
    set -- $1
    case $1 in
    extend)
        code=$(extend_once "$2")
        if [ "$code" = 00000000 ]; then say "extended $2"; else say "extend-failed $2 $code"; fi
        ;;
    flood)
        flood "$2"
        say "flooded $2"
        ;;
    write | read)
        if "${1}_sector" "$2"; then say "$1 $2 done"; else say "$1 $2 failed"; fi
        ;;
    evidence-truncated | evidence-altered | evidence-honest)
        echo "${1#evidence-}" >/tmp/evidence-mode
        say "$1"
        ;;
    esac
}

# Spoils the copies of the logs that the next frame carries.
misbehave_evidence() {
    mode=honest
    if [ -s /tmp/evidence-mode ]; then read -r mode </tmp/evidence-mode; fi
    case $mode in
    truncated)
        head -c $(($(wc -c </tmp/bios) - 40)) /tmp/bios >/tmp/bios.cut
        mv /tmp/bios.cut /tmp/bios
        ;;
    altered)
        # A byte of the last event's SHA-256 digest: its place in a log of one bank, and of four.
        size=$(wc -c </tmp/bios)
        for back in 60 170; do
            printf '\125' | dd of=/tmp/bios bs=1 seek=$((size - back)) conv=notrunc 2>/dev/null
        done
        ;;
    esac
}
