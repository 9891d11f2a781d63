"""Speaks as a VRRP router: vrrp_adverts.py SOURCE TARGET VIP ROUTER_ID PRIORITY SECONDS

Sends an advert of version 3 every twentieth of a second, with any source address and a time to live of 255.
Takes root, and the standard library only. Prints how many were sent.
"""

import socket
import struct
import sys
import time


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


source, target, vip = (socket.inet_aton(address) for address in sys.argv[1:4])
router, priority, seconds = map(int, sys.argv[4:7])
advert = struct.pack("!BBBBHH4s", 0x31, router, priority, 1, 10, 0, vip)
pseudo = struct.pack("!4s4sBBH", source, target, 0, 112, len(advert))
advert = struct.pack("!BBBBHH4s", 0x31, router, priority, 1, 10, checksum(pseudo + advert), vip)
# The kernel fills in the checksum of the header.
header = struct.pack("!BBHHHBBH4s4s", 0x45, 0xC0, 20 + len(advert), 0, 0, 255, 112, 0, source, target)
sent, end = 0, time.monotonic() + seconds
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as wire:
    while time.monotonic() < end:
        wire.sendto(header + advert, (sys.argv[2], 0))
        sent += 1
        time.sleep(0.05)
print(sent)
