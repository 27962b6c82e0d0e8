# Only in guest-xkms.img: the key-management client, on request by the line written to
# org.vouchsafe.control.0. Its trust anchors are on the EFI system partition, where the VM's owner
# put them: the disk is authenticated.

xkms_begin() {
    wait_for /dev/vda1 && mount -t vfat -o ro,codepage=437,iocharset=ascii /dev/vda1 /esp
    if [ -e /vouchsafe/ca.pem ]; then say "xkms-ready"; else say "xkms-without-ca"; fi
}

# xkms N WORDS..         runs the client with these words; N tells the answers apart
# xkms-serve PATH        runs the client on a local socket
# xkms-put NAME TEXT     puts one word into /tmp/NAME: a pass phrase
# xkms-tamper            ends that client, and makes the program one byte longer
xkms() {
    set -- $1
    case $1 in
    xkms)
        number=$2
        shift 2
        answer=$(/bin/vouchsafe-guest "$@" 2>&1 | tr '\n' ' ')
        say "xkms-$number $answer"
        ;;
    xkms-serve)
        /bin/vouchsafe-guest serve "$2" &
        serving=$!
        wait_for "$2" && say "xkms-serves $2"
        ;;
    xkms-put)
        echo "$3" >"/tmp/$2"
        say "xkms-put $2"
        ;;
    xkms-tamper)
        # A program that runs cannot be written to.
        kill "$serving" && wait "$serving"
        printf x >>/bin/vouchsafe-guest
        say "xkms-tampered"
        ;;
    esac
}
