# Only in the test variant of the image: what a hostile guest could do, on request by the line
# written to org.vouchsafe.control.0. The good image does not contain this file.

# TPM2_PCR_Extend of one SHA-256 digest with the empty password.
# tag size=65 cc=0x182 pcr | authsize=9 TPM_RS_PW nonce=0 attrs=0 auth=0 | count=1 alg=0x000b
pcr_extend() {
    exec 7<>/dev/tpm0
    {
        printf '\200\002\000\000\000\101\000\000\001\202\000\000\000\%03o' "$1"
        printf '\000\000\000\011\100\000\000\011\000\000\000\000\000'
        printf '\000\000\000\001\000\013'
        printf '%032d' "$2"
    } >/tmp/extend
    dd if=/tmp/extend of=/dev/stdout bs=4096 count=1 2>/dev/null >&7
    dd bs=4096 count=1 of=/dev/null 2>/dev/null <&7
    exec 7>&-
}

misbehave() {
    # shellcheck disable=SC2086
    set -- $1
    case $1 in
    extend)
        pcr_extend "$2" 1
        say "extended $2"
        ;;
    flood)
        n=0
        while [ $n -lt "$2" ]; do
            n=$((n + 1))
            pcr_extend 16 $n
        done
        say "flooded $2"
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
        # One byte of the last event's digest area.
        size=$(wc -c </tmp/bios)
        printf '\125' | dd of=/tmp/bios bs=1 seek=$((size - 60)) conv=notrunc 2>/dev/null
        ;;
    esac
}
