#!/bin/sh
# Run by the feed's CI where the package is installed, on every kind of processor that it has.

[ "$1" = piboot ] || exit 0

# A Raspberry Pi's DHCPDISCOVER: BOOTP header with its hardware address, message type, vendor class.
zeros() { printf "%0$(($1 * 2))d" 0; }
class=505845436c69656e743a417263683a30303030303a554e44493a303032303031
packet="0101060012345678$(zeros 20)dca6327926df$(zeros 202)638253633501013c20${class}ff"

piboot dhcp decode "$packet" | grep 'dc:a6:32:79:26:df' || exit 1

# It says what it misses, and does not just end.
piboot status 2>&1 | grep 'no agent answers' || exit 1
