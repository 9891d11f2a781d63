#!/bin/bash
# Written by cosyvoice-lvs. What else can be set comes from the environment, see
# /etc/cosyvoice/cosyvoice.env.
set -e
cd /root/CosyVoice
# shellcheck source=/dev/null
. cosyvoice_env/bin/activate
# exec: systemd follows the process that it started.
exec python app.py --host 0.0.0.0 --port 7860 --enable-queue
