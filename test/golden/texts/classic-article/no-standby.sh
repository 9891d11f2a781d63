! systemctl -q is-active keepalived.service || ip -4 -o address show to 192.168.1.100 | grep -q . || ! LC_ALL=C timeout 3 bash -c '</dev/tcp/192.168.1.100/7861' 2>&1 | grep -q refused
